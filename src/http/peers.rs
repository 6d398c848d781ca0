//! Which users may do what on the Unix socket. Pure.
//!
//! There are two rights. Who hands in logs and gives feedback; who administers sees and changes what is
//! kept. Neither follows from the other.

use super::Peer;

/// The users and groups that may use the Unix socket, beside what its file mode says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// `intake.unix_allow_uids`. With no groups either: whoever can open the socket hands in.
    pub uids: Vec<u32>,
    /// `intake.unix_allow_gids`: the client's effective group must be one of them.
    pub gids: Vec<u32>,
    /// `intake.unix_admin_uids`: who administers beside root and the daemon's own user.
    pub admin_uids: Vec<u32>,
    /// `intake.unix_admin_gids`: the client's effective group must be one of them.
    pub admin_gids: Vec<u32>,
}

impl Peers {
    /// The sentence for a client that may not hand in.
    pub(super) fn check_hands_in(&self, peer: Option<Peer>) -> Result<(), String> {
        if self.uids.is_empty() && self.gids.is_empty() {
            return Ok(());
        }
        match peer {
            Some(Peer { uid, gid }) if self.uids.contains(&uid) || self.gids.contains(&gid) => Ok(()),
            Some(Peer { uid, gid }) => Err(format!(
                "user {uid} with group {gid} may not use this socket: add one of them to intake.unix_allow_uids or \
                 intake.unix_allow_gids"
            )),
            None => Err(
                "the system does not say which user calls, and intake.unix_allow_uids or intake.unix_allow_gids is set: \
                 call over TCP, or leave both empty"
                    .to_owned(),
            ),
        }
    }

    /// The sentence for a client that may not administer. `own` is the user that the daemon runs as.
    pub(super) fn check_administers(&self, peer: Option<Peer>, own: u32) -> Result<(), String> {
        let Some(Peer { uid, gid }) = peer else {
            return Err(
                "the system does not say which user calls, so nobody sees or changes what is kept: stop the daemon, and \
                 use phosphod spool on its data folder"
                    .to_owned(),
            );
        };
        let trusted = uid == 0 || uid == own;
        if trusted || self.admin_uids.contains(&uid) || self.admin_gids.contains(&gid) {
            return Ok(());
        }
        Err(format!(
            "user {uid} with group {gid} may not see or change what is kept: call as root or as the daemon's user \
             ({own}), or add one of the two to intake.unix_admin_uids or intake.unix_admin_gids and restart the daemon"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 990;
    const PEER: Option<Peer> = Some(Peer { uid: 1000, gid: 100 });

    #[test]
    fn the_unix_socket_is_for_listed_users_and_groups_where_any_are_listed() {
        let allowed = |uids: &[u32], gids: &[u32], peer| {
            let peers = Peers {
                uids: uids.to_vec(),
                gids: gids.to_vec(),
                ..Peers::default()
            };
            peers.check_hands_in(peer).is_ok()
        };
        assert!(allowed(&[], &[], PEER) && allowed(&[], &[], None));
        assert!(allowed(&[1, 1000], &[], PEER) && allowed(&[1], &[100], PEER));
        assert!(
            !allowed(&[100], &[], PEER) && !allowed(&[], &[1000], PEER) && !allowed(&[1000], &[100], None)
        );
    }

    fn administers(admin_uids: &[u32], admin_gids: &[u32], peer: Option<Peer>) -> Result<(), String> {
        let peers = Peers {
            uids: vec![1000],
            gids: vec![100],
            admin_uids: admin_uids.to_vec(),
            admin_gids: admin_gids.to_vec(),
        };
        peers.check_administers(peer, OWN)
    }

    #[test]
    fn who_may_hand_in_does_not_administer() {
        let sentence = administers(&[], &[], PEER).expect_err("not listed");
        for part in [
            "user 1000 with group 100",
            "root",
            "(990)",
            "intake.unix_admin_uids",
            "intake.unix_admin_gids",
        ] {
            assert!(sentence.contains(part), "{part}: {sentence}");
        }
        let anybody = Peers::default();
        assert!(anybody.check_hands_in(PEER).is_ok());
        assert!(anybody.check_administers(PEER, OWN).is_err());
    }

    #[test]
    fn root_the_daemons_own_user_and_who_is_listed_administer() {
        let with = |uid, gid| Some(Peer { uid, gid });
        assert_eq!(administers(&[], &[], with(0, 5)), Ok(()));
        assert_eq!(administers(&[], &[], with(OWN, 5)), Ok(()));
        assert_eq!(administers(&[1, 1000], &[], PEER), Ok(()));
        assert_eq!(administers(&[1], &[100], PEER), Ok(()));
        // A user's number is no group's, and the other way round.
        for (uids, gids) in [([100], [1000]), ([1], [1])] {
            assert!(administers(&uids, &gids, PEER).is_err());
        }
        for group in [0, OWN] {
            assert!(administers(&[], &[], with(1000, group)).is_err(), "{group}");
        }
    }

    #[test]
    fn who_is_not_known_does_not_administer() {
        assert!(administers(&[0, OWN], &[0], None).is_err());
    }

    #[test]
    fn who_administers_does_not_hand_in_for_that() {
        let peers = Peers {
            uids: vec![1],
            admin_uids: vec![1000],
            ..Peers::default()
        };
        assert!(peers.check_hands_in(PEER).is_err());
        assert!(peers.check_administers(PEER, OWN).is_ok());
    }
}
