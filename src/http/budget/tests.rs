use super::*;
use proptest::prelude::*;
use tokio::task::JoinSet;

const LIMIT: usize = 4 * MIDDLE_BYTES;
const PATIENCE: Duration = Duration::from_secs(10);

fn budget() -> Budget {
    Budget::new(LIMIT, Gauge::default(), Counter::default())
}

fn in_flight(budget: &Budget) -> usize {
    usize::try_from(budget.0.in_flight.get()).expect("never below nothing")
}

/// Nothing is held, and nothing is lost to the shares.
fn assert_all_back(budget: &Budget) {
    assert_eq!(in_flight(budget), 0);
    let free = budget.0.shares.iter().map(|share| share.free.available_permits());
    assert_eq!(free.sum::<usize>(), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn small_ones_pass_while_large_ones_wait_in_line() {
    let budget = budget();
    let large = budget
        .reserve(2 * MIDDLE_BYTES, PATIENCE)
        .await
        .expect("half is free");
    let (second, third) = (budget.clone(), budget.clone());
    let second = tokio::spawn(async move { second.reserve(2 * MIDDLE_BYTES, PATIENCE).await });
    tokio::task::yield_now().await;
    let third = tokio::spawn(async move { third.reserve(MIDDLE_BYTES + 1, PATIENCE).await });
    tokio::task::yield_now().await;
    let small = budget
        .reserve(500, Duration::ZERO)
        .await
        .expect("a share of its own");
    assert_eq!(small.bytes(), LEAST_BYTES);
    let middle = budget.reserve(MIDDLE_BYTES, Duration::ZERO).await;
    assert_eq!(middle.expect("a share of its own").bytes(), MIDDLE_BYTES);
    drop(large);
    let second = second.await.expect("no panic").expect("it was the next");
    assert!(!third.is_finished(), "a later one does not overtake");
    drop(second);
    drop(third.await.expect("no panic").expect("room again"));
    drop(small);
    assert_all_back(&budget);
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_room_is_told_the_key_and_holds_up_nobody() {
    let budget = budget();
    let held = budget
        .reserve(2 * MIDDLE_BYTES, PATIENCE)
        .await
        .expect("half is free");
    let refused = budget
        .reserve(2 * MIDDLE_BYTES, PATIENCE)
        .await
        .expect_err("it is taken");
    assert!(
        refused.to_string().contains("raise intake.max_in_flight_bytes"),
        "{refused}"
    );
    let began = tokio::time::Instant::now();
    assert!(
        budget.reserve(LIMIT, PATIENCE).await.is_err(),
        "that is never there"
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(budget.0.refused.get(), 2);
    drop(held);
    assert_all_back(&budget);
}

#[tokio::test(start_paused = true)]
async fn two_half_read_bodies_never_wait_for_each_other() {
    let budget = budget();
    let half = 3 * MIDDLE_BYTES / 2;
    let mut first = budget.reserve(SMALL_BYTES, PATIENCE).await.expect("room");
    let mut second = budget.reserve(SMALL_BYTES, PATIENCE).await.expect("room");
    first.grow_to(half).expect("room");
    assert!(second.grow_to(half).is_err(), "at once, without waiting");
    drop(second);
    first.grow_to(half + SMALL_BYTES).expect("the other gave up");
    first.shrink_to(5);
    assert_eq!((first.bytes(), in_flight(&budget)), (5, 5));
    drop(first);
    assert_all_back(&budget);
}

#[tokio::test(start_paused = true)]
async fn room_comes_back_from_what_is_cancelled_or_panics() {
    let budget = budget();
    let holds = |bytes: usize| {
        let budget = budget.clone();
        async move {
            let _room = budget.reserve(bytes, PATIENCE).await;
            std::future::pending::<()>().await;
        }
    };
    let (holding, waiting) = (
        tokio::spawn(holds(2 * MIDDLE_BYTES)),
        tokio::spawn(holds(2 * MIDDLE_BYTES)),
    );
    tokio::task::yield_now().await;
    assert_eq!(in_flight(&budget), 2 * MIDDLE_BYTES);
    for task in [waiting, holding] {
        task.abort();
        assert!(task.await.expect_err("aborted").is_cancelled());
    }
    assert_all_back(&budget);
    let other = budget.clone();
    let panics = tokio::spawn(async move {
        let _room = other.reserve(SMALL_BYTES, PATIENCE).await;
        panic!("as a handler might");
    });
    assert!(panics.await.expect_err("it panicked").is_panic());
    assert_all_back(&budget);
}

/// One request's life: its first size, what it grows to, how long it works, whether it is cut off.
type Life = (usize, Vec<usize>, u64, Option<u64>);

async fn live(budget: Budget, (first, steps, work_ms, _): Life) {
    let Ok(mut room) = budget.reserve(first, PATIENCE).await else {
        return;
    };
    for step in steps {
        assert!(in_flight(&budget) <= LIMIT);
        tokio::time::sleep(Duration::from_millis(work_ms)).await;
        if room.grow_to(step).is_err() {
            return;
        }
    }
    tokio::time::sleep(Duration::from_millis(work_ms)).await;
    room.shrink_to(first / 2);
    assert!(in_flight(&budget) <= LIMIT);
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![0..SMALL_BYTES, 0..MIDDLE_BYTES, 0..2 * MIDDLE_BYTES + 2]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_comes_the_bound_holds_everybody_ends_and_all_comes_back(
        lives in prop::collection::vec(
            (sizes(), prop::collection::vec(sizes(), 0..5), 0..3_000_u64, prop::option::of(0..9_000_u64)),
            1..80,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let budget = budget();
            let mut tasks = JoinSet::new();
            for life in lives {
                let cut = Duration::from_millis(life.3.unwrap_or(u64::MAX));
                let budget = budget.clone();
                tasks.spawn(async move { timeout(cut, live(budget, life)).await });
            }
            // Each waits for at most its patience and then works for at most 6 times 3 s.
            let all = timeout(Duration::from_secs(30), async {
                while let Some(ended) = tasks.join_next().await {
                    let _cut_off_or_not = ended.expect("no assertion failed");
                }
            });
            all.await.expect("nobody waits for ever");
            assert_all_back(&budget);
        });
    }
}
