//! The table of leases by itself, against a plain reckoning of what it must do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use openclaw_env_server::leases::{Begun, Denied, Leases, Limits, Reply, fingerprint};
use proptest::prelude::*;

const TTL: u64 = 10;

#[derive(Clone, Debug)]
enum Event {
    Allocate { task: u8, request: Option<u8>, ttl: Option<u64> },
    Heartbeat(usize),
    Call { lease: usize, request: Option<u8>, body: u8 },
    Answer(usize),
    Close(usize),
    Gone(usize),
    Wait(u64),
    Expire,
}

fn any_event() -> impl Strategy<Value = Event> {
    let lease = 0..12_usize;
    prop_oneof![
        4 => (0..4_u8, prop::option::of(0..6_u8), prop::option::of(1..20_u64))
            .prop_map(|(task, request, ttl)| Event::Allocate { task, request, ttl }),
        3 => lease.clone().prop_map(Event::Heartbeat),
        5 => (lease.clone(), prop::option::of(0..4_u8), 0..3_u8)
            .prop_map(|(lease, request, body)| Event::Call { lease, request, body }),
        3 => (0..8_usize).prop_map(Event::Answer),
        1 => lease.clone().prop_map(Event::Close),
        2 => lease.prop_map(Event::Gone),
        4 => (1..6_u64).prop_map(Event::Wait),
        2 => Just(Event::Expire),
    ]
}

/// What is known of a lease without the table.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    task: u8,
    ttl: u64,
    last_sign: u64,
    ended: bool,
    free: bool,
}

impl Known {
    fn is_live(&self, now: u64) -> bool {
        !self.ended && now < self.last_sign + self.ttl
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_lease_outlives_its_time_no_slot_leaks_and_a_named_request_is_done_once(
        events in prop::collection::vec(any_event(), 1..120),
    ) {
        let limits = Limits { task_slots: 2, run_slots: 3, ttl_secs: TTL as f64, answers_mb: 1 };
        let mut table: Leases<usize> = Leases::new(limits.clone());
        let start = Instant::now();
        let (mut now, mut leases) = (0_u64, Vec::<Known>::new());
        let mut pens = Vec::new();
        let mut done: BTreeMap<(String, u8), u8> = BTreeMap::new();
        let at = |now: u64| start + Duration::from_secs(now);
        for event in events {
            match event {
                Event::Wait(seconds) => now += seconds,
                Event::Expire => {
                    let over = leases.iter().filter(|known| !known.ended && !known.is_live(now)).count();
                    prop_assert_eq!(table.expire(at(now)), over);
                    for known in &mut leases {
                        known.ended |= !known.is_live(now);
                    }
                }
                Event::Allocate { task, request, ttl } => {
                    let taken: Vec<&Known> = leases.iter().filter(|known| !known.free).collect();
                    let runs = taken.iter().filter(|known| known.task == task).count();
                    let tasks: BTreeSet<u8> = taken.iter().map(|known| known.task).collect();
                    let id = format!("lease-{}", leases.len());
                    let request_id = request.map(|request| request.to_string());
                    let got = table.allocate::<Denied>(
                        &task.to_string(), request_id.as_deref(), ttl.map(Duration::from_secs), at(now), id.clone(),
                        || Ok(leases.len()),
                    );
                    match got {
                        Ok(got) if got.reused => {
                            let known = leases.iter_mut().find(|known| known.id == got.id).expect("it is known");
                            prop_assert!(request.is_some() && known.task == task && known.is_live(now));
                            known.last_sign = now;
                        }
                        Ok(got) => {
                            prop_assert!(runs < limits.run_slots && (runs > 0 || tasks.len() < limits.task_slots));
                            prop_assert_eq!(&got.id, &id);
                            let ttl = ttl.map_or(TTL, |ttl| ttl.min(TTL));
                            prop_assert_eq!(got.ttl, Duration::from_secs(ttl));
                            leases.push(Known { id, task, ttl, last_sign: now, ended: false, free: false });
                        }
                        Err(Denied::RunSlots) => prop_assert_eq!(runs, limits.run_slots),
                        Err(Denied::TaskSlots) => prop_assert!(runs == 0 && tasks.len() == limits.task_slots),
                        Err(other) => prop_assert!(false, "{other:?}"),
                    }
                }
                Event::Heartbeat(lease) => {
                    let Some(known) = leases.get_mut(lease) else { continue };
                    let live = known.is_live(now);
                    prop_assert_eq!(table.heartbeat(&known.id, at(now)).is_ok(), live);
                    if live {
                        known.last_sign = now;
                    }
                }
                Event::Call { lease, request, body } => {
                    let Some(known) = leases.get_mut(lease) else { continue };
                    let live = known.is_live(now);
                    let request_id = request.map(|request| request.to_string());
                    let print = fingerprint("step", &[body]);
                    let before = request.and_then(|request| done.get(&(known.id.clone(), request)).copied());
                    match table.begin(&known.id, request_id.as_deref(), print, at(now)).map(|(begun, _)| begun) {
                        Err(Denied::Gone) => prop_assert!(!live),
                        Err(Denied::Reused) => {
                            prop_assert!(live && before.is_some_and(|before| before != body));
                            known.last_sign = now;
                        }
                        Err(other) => prop_assert!(false, "{other:?}"),
                        Ok(begun) => {
                            prop_assert!(live);
                            known.last_sign = now;
                            match begun {
                                Begun::New(pen, awaited) => {
                                    prop_assert!(before.is_none(), "it was done before");
                                    if let Some(request) = request {
                                        done.insert((known.id.clone(), request), body);
                                    }
                                    pens.push((pen, awaited, body));
                                }
                                Begun::Again(awaited) => {
                                    prop_assert_eq!(before, Some(body));
                                    if let Some(reply) = &*awaited.borrow() {
                                        prop_assert_eq!(reply.body.as_ref(), &[body]);
                                    }
                                }
                            }
                        }
                    }
                }
                Event::Answer(nth) => {
                    if nth < pens.len() {
                        let (pen, awaited, body) = pens.remove(nth);
                        pen.write(Reply { status: 200, body: vec![body].into() });
                        prop_assert_eq!(awaited.borrow().as_ref().map(|reply| reply.body[0]), Some(body));
                    }
                }
                Event::Close(lease) => {
                    let Some(known) = leases.get_mut(lease) else { continue };
                    // One whose time is over, and of which nobody has asked since, is still there to be closed.
                    prop_assert_eq!(table.end(&known.id), !known.ended);
                    known.ended = true;
                }
                Event::Gone(lease) => {
                    // The world of a lease that has ended has.
                    let Some(known) = leases.get_mut(lease).filter(|known| known.ended && !known.free) else { continue };
                    prop_assert_eq!(table.free(&known.id), Some(lease));
                    known.free = true;
                }
            }
            let taken = leases.iter().filter(|known| !known.free).count();
            let (live, ending) = table.count();
            prop_assert_eq!(live + ending, taken);
        }
        // All that ended frees its slot, and nothing else was taken.
        table.expire(at(now + 2 * TTL));
        let ids: Vec<String> = table.all().map(|(id, ended, _)| {
            assert!(ended, "{id} outlives its time");
            id.to_owned()
        }).collect();
        for id in ids {
            table.free(&id);
        }
        prop_assert_eq!(table.count(), (0, 0));
    }
}

#[test]
fn what_is_kept_of_a_lease_is_bounded() {
    let limits = Limits { task_slots: 1, run_slots: 1, ttl_secs: 60.0, answers_mb: 1 };
    let mut table: Leases<()> = Leases::new(limits);
    let now = Instant::now();
    table.allocate::<Denied>("task", None, None, now, "a".into(), || Ok(())).expect("a lease");
    let answer = |table: &mut Leases<()>, name: &str| {
        table.begin("a", Some(name), 0, now).map(|(begun, ())| match begun {
            Begun::New(pen, _) => pen.write(Reply { status: 200, body: vec![0; 600 << 10].into() }),
            Begun::Again(_) => panic!("{name} is new"),
        })
    };
    answer(&mut table, "1").expect("there is room");
    answer(&mut table, "2").expect("there is room");
    assert_eq!(answer(&mut table, "3"), Err(Denied::Answers));
    assert!(
        matches!(table.begin("a", Some("1"), 0, now), Ok((Begun::Again(_), ()))),
        "what is kept is told again"
    );
    assert!(
        matches!(table.begin("a", None, 0, now), Ok((Begun::New(..), ()))),
        "and what is not kept is done"
    );
}
