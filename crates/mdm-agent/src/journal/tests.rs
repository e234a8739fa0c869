use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::clock::now;

fn command(number: u128, kind: &str) -> DeliveredCommand {
    let lane = match kind {
        "system_info" => "query",
        "run_script" => "script",
        _ => "control",
    };
    DeliveredCommand {
        id: Uuid::from_u128(number),
        command: kind.to_owned(),
        parameters: Value::Null,
        lane: lane.to_owned(),
        expires_at: (now() + Duration::days(1)).into(),
        attempt: 1,
    }
}

fn done(number: u128) -> CommandResult {
    CommandResult {
        command_id: Uuid::from_u128(number),
        status: "completed".to_owned(),
        result: Some(1.into()),
        error: None,
    }
}

struct Fixture {
    journal: Journal,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            journal: Journal::open(&directory.path().join("journal.db")).unwrap(),
            directory,
        }
    }

    /// As after a kill: nothing is closed in order, the file is opened anew.
    fn crash(&mut self) -> Vec<DeliveredCommand> {
        self.journal = Journal::open(&self.directory.path().join("journal.db")).unwrap();
        self.journal.now(|ledger| ledger.recover(now())).unwrap()
    }

    fn receive(&self, command: &DeliveredCommand) -> Receipt {
        self.journal
            .now(|ledger| ledger.receive(command, now()))
            .unwrap()
    }

    fn start(&self, number: u128) -> bool {
        self.journal
            .now(|ledger| ledger.start(Uuid::from_u128(number), now()))
            .unwrap()
    }

    fn finish(&self, number: u128) {
        self.journal
            .now(|ledger| ledger.finish(&done(number), now()))
            .unwrap();
    }

    fn unsent(&self) -> Vec<CommandResult> {
        let all = |ledger: &Ledger<'_>| {
            let ids = ledger.unsent_ids(100)?;
            ids.into_iter()
                .filter_map(|id| ledger.outcome(id).transpose())
                .collect()
        };
        self.journal.now(all).unwrap()
    }
}

#[test]
fn what_comes_again_is_not_run_again_and_its_outcome_is_told_again() {
    let fixture = Fixture::new();
    let query = command(1, "system_info");
    assert_eq!(fixture.receive(&query), Receipt::New);
    assert_eq!(fixture.receive(&query), Receipt::InProgress);
    assert!(fixture.start(1));
    assert!(!fixture.start(1));
    assert_eq!(fixture.receive(&query), Receipt::InProgress);
    fixture.finish(1);
    assert_eq!(fixture.receive(&query), Receipt::Ended(done(1)));
    assert_eq!(fixture.unsent(), [done(1)]);
    fixture
        .journal
        .now(|ledger| ledger.acknowledge(Uuid::from_u128(1), "running", now()))
        .unwrap();
    assert_eq!(
        fixture.unsent().len(),
        1,
        "that it runs was acknowledged, not how it ended"
    );
    fixture
        .journal
        .now(|ledger| ledger.acknowledge(Uuid::from_u128(1), "completed", now()))
        .unwrap();
    assert!(fixture.unsent().is_empty());
    assert_eq!(fixture.receive(&query), Receipt::Ended(done(1)));
}

#[test]
fn after_a_crash_queries_run_again_and_what_changes_things_does_not() {
    let mut fixture = Fixture::new();
    for (number, kind) in [
        (1, "system_info"),
        (2, "run_script"),
        (3, "restart"),
        (4, "restart"),
    ] {
        fixture.receive(&command(number, kind));
    }
    for number in 1..=3 {
        assert!(fixture.start(number));
    }
    let to_run: Vec<_> = fixture
        .crash()
        .into_iter()
        .map(|command| command.id.as_u128())
        .collect();
    assert_eq!(to_run, [1, 4]);
    let told: Vec<_> = fixture
        .unsent()
        .into_iter()
        .map(|outcome| (outcome.command_id.as_u128(), outcome.status))
        .collect();
    assert_eq!(told, [(2, "failed".to_owned()), (3, "unknown".to_owned())]);
    assert!(!fixture.start(3));
}

#[test]
fn a_destructive_command_that_never_came_is_never_run_when_it_comes_late() {
    let mut fixture = Fixture::new();
    let outcomes = fixture
        .journal
        .now(|ledger| ledger.reconcile(&[Uuid::from_u128(9)], now()))
        .unwrap();
    assert_eq!(
        (outcomes[0].status.as_str(), outcomes[0].error.as_deref()),
        ("failed", Some("the command never reached this device"))
    );
    assert_eq!(fixture.receive(&command(9, "wipe")), Receipt::Refused);
    assert!(!fixture.start(9));
    assert!(fixture.crash().is_empty());
    assert!(!fixture.start(9));
}

#[test]
fn a_command_that_was_called_off_before_it_began_never_begins() {
    let fixture = Fixture::new();
    fixture.receive(&command(1, "run_script"));
    fixture
        .journal
        .now(|ledger| ledger.cancel(Uuid::from_u128(1), now()))
        .unwrap();
    assert!(!fixture.start(1));
    assert!(fixture.unsent().is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Deliver(u128),
    Start(u128),
    Finish(u128),
    Acknowledge(u128),
    Reconcile(u128),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (0_u128..6).prop_flat_map(|n| {
        prop_oneof![
            4 => Just(Step::Deliver(n)),
            4 => Just(Step::Start(n)),
            3 => Just(Step::Finish(n)),
            2 => Just(Step::Acknowledge(n)),
            1 => Just(Step::Reconcile(n)),
            1 => Just(Step::Crash),
        ]
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_nothing_harmful_starts_twice_and_nothing_finished_starts_again(steps in steps()) {
        let kinds = ["restart", "system_info", "run_script"];
        let kind = |n: u128| kinds[usize::try_from(n).unwrap() % kinds.len()];
        let mut fixture = Fixture::new();
        let mut started: BTreeMap<u128, u32> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for step in steps {
            match step {
                Step::Deliver(n) => { fixture.receive(&command(n, kind(n))); }
                Step::Start(n) => {
                    if fixture.start(n) {
                        prop_assert!(!ended.contains(&n), "{n} had ended");
                        *started.entry(n).or_default() += 1;
                    }
                }
                Step::Finish(n) => {
                    if started.contains_key(&n) {
                        fixture.finish(n);
                        ended.insert(n);
                    }
                }
                Step::Acknowledge(n) => {
                    fixture.journal.now(|ledger| ledger.acknowledge(Uuid::from_u128(n), "completed", now())).unwrap();
                }
                Step::Reconcile(n) => {
                    let told = fixture.journal.now(|ledger| ledger.reconcile(&[Uuid::from_u128(n)], now())).unwrap();
                    if told.iter().any(|outcome| outcome.status == "failed") {
                        ended.insert(n);
                    }
                }
                Step::Crash => { fixture.crash(); }
            }
        }
        for (n, times) in started {
            prop_assert!(kind(n) == "system_info" || times == 1, "{} started {times} times", kind(n));
        }
    }
}
