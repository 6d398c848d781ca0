use super::*;
use std::sync::mpsc;

/// A reader that takes a line for every permit, and shows what it took. Without permits it is a
/// full pipe; once they have an end, it is gone.
struct Reader {
    permits: mpsc::Receiver<()>,
    taken: mpsc::Sender<String>,
}

impl Write for Reader {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.permits.recv().is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let text = String::from_utf8(line.to_vec()).expect("text");
        let _ = self.taken.send(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pipe {
    lines: Background,
    permits: mpsc::Sender<()>,
    taken: mpsc::Receiver<String>,
    told: mpsc::Receiver<u64>,
    dropped: Counter,
}

fn pipe(room: usize) -> Pipe {
    let (permits, of_reader) = mpsc::channel();
    let (of_pipe, taken) = mpsc::channel();
    let (telling, told) = mpsc::channel();
    let reader = Reader {
        permits: of_reader,
        taken: of_pipe,
    };
    let dropped = Counter::default();
    let tell = move |lost| {
        let _ = telling.send(lost);
    };
    Pipe {
        lines: Background::with_room(room, reader, dropped.clone(), tell),
        permits,
        taken,
        told,
        dropped,
    }
}

#[test]
fn who_writes_never_waits_and_what_finds_no_room_is_counted_and_told() {
    let pipe = pipe(8);
    for n in 0..100 {
        pipe.lines.line(&n.to_string());
    }
    // Eight wait, and the thread may hold one.
    let dropped = pipe.dropped.get();
    assert!((91..=92).contains(&dropped), "{dropped}");
    for _ in 0..100 - dropped {
        pipe.permits.send(()).expect("the thread reads");
    }
    let read: Vec<String> = pipe.taken.iter().take((100 - dropped) as usize).collect();
    let numbers: Vec<u32> = read
        .iter()
        .map(|line| line.trim_end().parse().expect("a number"))
        .collect();
    assert!(
        numbers.is_sorted() && numbers.starts_with(&[0, 1]),
        "in order: {numbers:?}"
    );
    assert_eq!(pipe.told.recv(), Ok(dropped));
    assert_eq!(pipe.dropped.get(), dropped);
}

#[test]
fn what_was_lost_is_told_in_the_end_even_if_the_line_that_says_so_finds_no_room_at_first() {
    let (permits, of_reader) = mpsc::channel();
    let (of_pipe, taken) = mpsc::channel();
    let reader = Reader {
        permits: of_reader,
        taken: of_pipe,
    };
    let own = Arc::new(OnceLock::<Background>::new());
    let way = own.clone();
    let tell = move |lost| {
        if let Some(lines) = way.get() {
            lines.line(&format!("lost {lost}"));
        }
    };
    let lines = own.get_or_init(|| Background::with_room(8, reader, Counter::default(), tell));
    for n in 0..100 {
        lines.line(&n.to_string());
    }
    for _ in 0..200 {
        permits.send(()).expect("the thread reads");
    }
    let told = taken
        .iter()
        .find_map(|line| line.trim_end().strip_prefix("lost ")?.parse::<u64>().ok());
    // Eight wait, the thread may hold one, and a line that told of it may have been lost.
    assert!(told.is_some_and(|lost| (91..=93).contains(&lost)), "{told:?}");
}

#[test]
fn the_end_waits_for_a_reader_that_reads_and_not_for_one_that_does_not() {
    let reads = pipe(8);
    for n in 0..5 {
        reads.lines.line(&n.to_string());
        reads.permits.send(()).expect("the thread reads");
    }
    reads.lines.finish(Duration::from_secs(600));
    assert_eq!(reads.taken.try_iter().count(), 5, "all are written by then");

    // With a queue that is full and with one that is not.
    for lines in [1, 100] {
        let stuck = pipe(8);
        for n in 0..lines {
            stuck.lines.line(&n.to_string());
        }
        stuck.lines.finish(Duration::from_millis(1));
        assert_eq!(stuck.taken.try_iter().count(), 0);
        stuck.lines.finish(Duration::from_millis(1));
    }
}

#[test]
fn lines_whose_reader_is_gone_are_counted_and_keep_nobody() {
    let Pipe {
        lines,
        permits,
        dropped,
        ..
    } = pipe(8);
    drop(permits);
    for n in 0..5 {
        lines.line(&n.to_string());
    }
    lines.finish(Duration::from_secs(600));
    assert_eq!(dropped.get(), 5);
}

#[test]
fn a_reader_without_room_that_does_not_block_gets_all_in_the_end() {
    struct Small(Vec<u8>, bool);
    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match (self.1, bytes.first()) {
                (true, Some(first)) => {
                    self.0.push(*first);
                    Ok(1)
                }
                _ => Err(ErrorKind::WouldBlock.into()),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut out = Small(Vec::new(), false);
    write_patiently(&mut out, b"line").expect("in the end");
    assert_eq!(out.0, b"line");
}

#[test]
fn every_line_is_without_secrets_and_shows_all_that_is_in_it() {
    let pipe = pipe(8);
    let secrets = Secrets::default();
    secrets.learn(crate::secret::Secret::new("sk-canary"));
    let lines = pipe.lines.masking(secrets);
    lines.line("got sk-canary and \u{202e}");
    pipe.permits.send(()).expect("it reads");
    let line = pipe.taken.recv().expect("a line");
    assert_eq!(line, "got *** and \\u{202e}\n");
}
