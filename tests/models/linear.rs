//! The checker of histories, against a checker of somebody else and against histories whose answer
//! is plain to see.

use meridian_tests::linear::{
    Log, LogCall, Object, Recorded, Register, RegisterCall, Written, is_linearizable,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stateright::semantics::register::{Register as Reference, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

fn at<C>(sent: u64, answered: u64, call: C) -> Recorded<C> {
    Recorded { call, sent, answered: Some(answered) }
}

fn never<C>(sent: u64, call: C) -> Recorded<C> {
    Recorded { call, sent, answered: None }
}

fn put(value: u64, revision: u64) -> RegisterCall {
    let outcome = Written::Revision(revision);
    RegisterCall::Write { expected: None, value, outcome }
}

fn put_if(expected: u64, value: u64, outcome: Written) -> RegisterCall {
    RegisterCall::Write { expected: Some(expected), value, outcome }
}

fn got(revision: u64, value: u64) -> RegisterCall {
    RegisterCall::Read(Some((revision, value)))
}

#[test]
fn histories_of_a_register_are_judged() {
    use RegisterCall::Read;
    use Written::{Conflict, Revision, Unknown};
    let lost = |value| RegisterCall::Write { expected: None, value, outcome: Unknown };
    let rows = [
        (true, vec![]),
        (true, vec![at(0, 1, put(7, 3)), at(2, 3, got(3, 7))]),
        (false, vec![at(0, 1, put(7, 3)), at(2, 3, Read(None))]), // stale
        (true, vec![at(0, 4, put(7, 3)), at(2, 3, Read(None))]),  // at the same time
        (true, vec![at(0, 4, put(7, 3)), at(2, 3, got(3, 7))]),
        (false, vec![at(0, 9, put(7, 3)), at(2, 3, got(3, 7)), at(4, 5, Read(None))]), // back
        (true, vec![never(0, lost(7)), at(2, 3, Read(None)), at(4, 5, got(6, 7))]),
        (false, vec![never(0, lost(7)), at(2, 3, got(6, 7)), at(4, 5, Read(None))]),
        (false, vec![at(0, 1, put(7, 3)), at(2, 3, put(8, 2))]), // revisions do not grow
        (false, vec![at(0, 1, put(7, 3)), at(2, 3, put(8, 4)), at(4, 5, got(3, 7))]), // a lost write
        (true, vec![at(0, 1, put(7, 3)), at(2, 3, put_if(3, 8, Revision(4)))]),
        (false, vec![at(0, 1, put(7, 3)), at(2, 3, put_if(3, 8, Conflict))]),
        (true, vec![at(0, 1, put(7, 3)), at(2, 3, put_if(2, 8, Conflict))]),
        // two of one revision: only one may have it
        (true, vec![at(0, 9, put_if(0, 7, Revision(3))), at(0, 9, put_if(0, 8, Conflict))]),
        (false, vec![at(0, 9, put_if(0, 7, Revision(3))), at(0, 9, put_if(0, 8, Revision(4)))]),
        // an unknown write explains a conflict
        (true, vec![never(0, lost(7)), at(2, 3, put_if(0, 8, Conflict))]),
    ];
    for (want, history) in rows {
        assert_eq!(is_linearizable::<Register>(&history), want, "{history:?}");
    }
}

#[test]
fn histories_of_a_log_are_judged() {
    use LogCall::{Append, Last};
    let rows = [
        (true, vec![at(0, 1, Append(Some(1))), at(2, 3, Append(Some(2))), at(4, 5, Last(2))]),
        (false, vec![at(0, 1, Append(Some(2))), at(2, 3, Append(Some(1)))]),
        (true, vec![at(0, 3, Append(Some(2))), at(2, 3, Append(Some(1)))]),
        (false, vec![at(0, 1, Append(Some(1))), at(2, 3, Append(Some(1)))]), // one place, twice
        (false, vec![at(0, 1, Append(Some(1))), at(2, 3, Last(0))]),
        (true, vec![never(0, Append(None)), at(2, 3, Last(0)), at(4, 5, Last(1))]),
        (false, vec![never(0, Append(None)), at(2, 3, Last(1)), at(4, 5, Last(0))]),
    ];
    for (want, history) in rows {
        assert_eq!(is_linearizable::<Log>(&history), want, "{history:?}");
    }
}

/// What was asked, and what was answered.
type PlainCall = (RegisterOp<u8>, Option<RegisterRet<u8>>);

/// A register without revisions, as the other checker has it.
enum Plain {}

impl Object for Plain {
    type State = u8;
    type Call = PlainCall;

    fn initial() -> u8 {
        0
    }

    fn apply(state: &u8, call: &Self::Call) -> Option<u8> {
        match call {
            (RegisterOp::Write(value), _) => Some(*value),
            (RegisterOp::Read, Some(RegisterRet::ReadOk(found))) => {
                (found == state).then_some(*state)
            }
            (RegisterOp::Read, _) => Some(*state),
        }
    }
}

/// Clients of a register that answers some reads with what it held before: some histories are
/// linearizable, some are not, and both checkers must agree on each.
#[test]
fn both_checkers_agree_on_random_histories() {
    let mut verdicts = [0, 0];
    for seed in 0..3_000 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut reference = LinearizabilityTester::new(Reference(0_u8));
        let mut history: Vec<Recorded<PlainCall>> = Vec::new();
        let mut open: [Option<usize>; 3] = [None; 3];
        let (mut held, mut before) = (0, 0);
        for time in 0..14 {
            let client = chance.random_range(0..open.len());
            let slot = open.get_mut(client).unwrap();
            let Some(at) = slot.take() else {
                let op = if chance.random_bool(0.5) {
                    RegisterOp::Write(chance.random_range(1..4))
                } else {
                    RegisterOp::Read
                };
                reference.on_invoke(client, op.clone()).unwrap();
                history.push(Recorded { call: (op, None), sent: time, answered: None });
                *slot = Some(history.len() - 1);
                continue;
            };
            let recorded = history.get_mut(at).unwrap();
            let answer = match &recorded.call.0 {
                RegisterOp::Write(value) => {
                    (before, held) = (held, *value);
                    RegisterRet::WriteOk
                }
                RegisterOp::Read => {
                    RegisterRet::ReadOk(if chance.random_bool(0.3) { before } else { held })
                }
            };
            reference.on_return(client, answer.clone()).unwrap();
            recorded.call.1 = Some(answer);
            recorded.answered = Some(time);
        }
        let found = is_linearizable::<Plain>(&history);
        assert_eq!(found, reference.is_consistent(), "seed {seed}: {history:?}");
        verdicts[usize::from(found)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 300), "one-sided: {verdicts:?}");
}
