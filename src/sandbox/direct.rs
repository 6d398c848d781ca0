//! The API asked by function calls: for simulations and fuzzing, which have no sockets.

#![cfg_attr(
    not(test),
    allow(dead_code, reason = "the simulation uses what fuzzing does not")
)]

use super::switches::Switches;
use super::{Handle, api};
use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request};

/// What the API said.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// It drops the connection afterwards, because storing failed.
    pub(crate) then_drop: bool,
}

impl Handle {
    /// Asks the API itself: no listener, no faults of [`Switches`] below HTTP. A body makes it a POST.
    pub(crate) async fn ask(&self, path: &str, key: &str, body: Option<Vec<u8>>) -> Said {
        let method = match body {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {key}"))
            .body(());
        let Ok(request) = request else {
            panic!("{path} and {key} make no request");
        };
        let (head, ()) = request.into_parts();
        let reply = api::answer(&self.book, &head, &body.unwrap_or_default().into()).await;
        Said {
            status: reply.status.as_u16(),
            body: reply.body,
            then_drop: reply.then_drop,
        }
    }

    /// Changes switches.
    pub(crate) fn adjust(&self, change: impl FnOnce(&mut Switches)) {
        self.book.with(|page| change(&mut page.switches));
    }
}
