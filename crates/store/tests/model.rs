//! Random sequences of everything that senders and clients do, on all engines at once. What can be read has to be the same on each, and the rules
//! of the record have to hold whatever the engine.
//!
//! `HILUM_MODEL_SEQUENCES=10000 cargo test --release -p hilum-store --test model` goes on for longer; `HILUM_MODEL_SEED` begins elsewhere. What
//! fails is made as short as it can be and printed with the command that repeats it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "model/benches.rs"]
mod benches;
#[path = "../../../tests/harness/cluster.rs"]
mod cluster;
#[path = "model/dice.rs"]
mod dice;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/steps.rs"]
mod steps;

use benches::{Bench, Server, State, benches};
use bytes::Bytes;
use dice::sequence;
use hilum_fhir::{Action, Change, Resource, Target};
use hilum_store::{Commit, Original, OriginalKind, sha256};
use rules::{Happened, Model, searches_follow};
use serde_json::{Value, json};
use steps::{Step, kind, received};

/// Sequences of an ordinary run.
const SEQUENCES: u64 = 60;
/// Steps after which everything that can be read is compared. What is read is drawn, so an engine that is read less draws less.
const COMPARED_EVERY: usize = 5;
/// Runs that make a failure shorter.
const SHORTER_RUNS_MAX: usize = 400;

#[tokio::test]
async fn all_engines_tell_the_same_and_keep_the_rules_of_the_record() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let (first, count) = (number("HILUM_MODEL_SEED", 1), number("HILUM_MODEL_SEQUENCES", SEQUENCES));
    let mut server = Server::start();
    let mut reach = Reach::default();
    for seed in first..first + count {
        let steps = sequence(seed);
        if let Err(why) = run(&steps, COMPARED_EVERY, &mut server, &mut reach).await {
            println!(
                "sequence {seed} fails: {}; it is made shorter",
                why.split(':').next().unwrap_or_default()
            );
            let (steps, why) = shorter(steps, why, &mut server).await;
            let list: Vec<String> = steps.iter().map(|step| format!("    {step:?}")).collect();
            panic!(
                "sequence {seed}: {why}\n{} steps show it:\n{}\nrepeat it: HILUM_MODEL_SEED={seed} HILUM_MODEL_SEQUENCES=1 cargo test -p hilum-store --test model\n",
                steps.len(),
                list.join("\n")
            );
        }
    }
    println!("{count} sequences from seed {first}: {reach:?}");
    if count >= SEQUENCES {
        reach.is_wide();
    }
}

/// How often what matters came about: a generator whose messages are all refused tests nothing.
#[derive(Debug, Default)]
struct Reach {
    accepted: usize,
    refused: usize,
    late: usize,
    joined: usize,
    conflicts: usize,
    duplicates: usize,
    replaced: usize,
    images: usize,
    linked: usize,
    parts: usize,
    parted: usize,
}

impl Reach {
    fn note(&mut self, told: &Value) {
        let text = told.to_string();
        let has = |word: &str| usize::from(text.contains(word));
        self.accepted += has("\"outcomes\":[{");
        self.refused += has("\"refused\"");
        self.late += has("\"Late\"");
        self.joined += has("\"joined\"");
        self.conflicts += has("\"identity-conflict\"");
        self.duplicates += has("\"duplicate\":true");
        self.replaced += has("\"replaced-by\"") + has("\"replaces\"");
        self.images += has("\"rows\":\"recorded\"");
        self.linked += has("\"reference\":\"ServiceRequest/");
        self.parts += has("\"reference\":\"Procedure/");
        self.parted += has("does so no longer");
    }

    fn is_wide(&self) {
        let all = [
            self.accepted,
            self.refused,
            self.late,
            self.joined,
            self.conflicts,
            self.duplicates,
            self.replaced,
            self.images,
            self.linked,
            self.parts,
        ];
        assert!(all.iter().all(|count| *count > 0), "something never came about: {self:?}");
    }
}

/// Leaves out steps as long as the same thing fails.
async fn shorter(mut steps: Vec<Step>, why: String, server: &mut Option<Server>) -> (Vec<Step>, String) {
    let (mut why, mut runs, mut every) = (why, 0, COMPARED_EVERY);
    let rule = |why: &str| why.split(':').next().unwrap_or_default().to_owned();
    if run(&steps, usize::MAX, server, &mut Reach::default())
        .await
        .is_err_and(|other| rule(&other) == rule(&why))
    {
        every = usize::MAX;
    }
    loop {
        let length = steps.len();
        for at in (0..length).rev() {
            let mut fewer = steps.clone();
            fewer.remove(at);
            runs += 1;
            if runs > SHORTER_RUNS_MAX {
                return (steps, why);
            }
            match run(&fewer, every, server, &mut Reach::default()).await {
                Err(other) if rule(&other) == rule(&why) => (steps, why) = (fewer, other),
                _ => {}
            }
        }
        if steps.len() == length {
            return (steps, why);
        }
    }
}

/// What was sent and accepted, to be sent again.
struct Sent {
    original: Original,
    changes: Vec<Change>,
    answer: Option<Bytes>,
}

/// Runs a sequence on all engines.
async fn run(
    steps: &[Step],
    every: usize,
    server: &mut Option<Server>,
    reach: &mut Reach,
) -> Result<(), String> {
    let mut all = benches(server).await;
    let (mut model, mut sent) = (Model::default(), Vec::new());
    let mut before = State::new();
    let mut done = Ok(());
    for (at, step) in steps.iter().enumerate() {
        done = one(step, at, &mut all, server, &mut sent, reach, &mut model, &mut before).await;
        if done.is_ok() && ((at + 1) % every == 0 || at + 1 == steps.len()) {
            done = compare(&mut all, at + 1 == steps.len()).await;
        }
        if done.is_err() {
            break;
        }
    }
    for bench in all {
        bench.close().await;
    }
    done
}

/// One step on all engines, and the rules it has to keep.
#[expect(clippy::too_many_arguments, reason = "the state of a run")]
async fn one(
    step: &Step,
    at: usize,
    all: &mut [Bench],
    server: &mut Option<Server>,
    sent: &mut Vec<Sent>,
    reach: &mut Reach,
    model: &mut Model,
    before: &mut State,
) -> Result<(), String> {
    let mut told: Vec<Value> = Vec::new();
    let mut accepted = None;
    for bench in all.iter_mut() {
        let one = match step {
            Step::Restart => {
                bench.restart(server).await;
                Value::Null
            }
            Step::Publish => {
                bench.publish().await;
                Value::Null
            }
            Step::Repeat { back } => repeat(bench, sent.iter().rev().nth(*back)).await?,
            _ => match submission(step, at, bench).await {
                None => Value::Null,
                Some((original, changes)) => {
                    let done = bench.submit(original.clone(), changes.clone(), &format!("answer {at}")).await;
                    if let Ok(commit) = &done
                        && original.control.is_some()
                    {
                        accepted = Some(Sent { original, changes, answer: commit.answer.clone() });
                    }
                    bench.told(&done)
                }
            },
        };
        told.push(one);
    }
    sent.extend(accepted);
    reach.note(&told[0]);
    for (bench, one) in all.iter().zip(&told).skip(1) {
        same(&format!("step {at} {step:?} is told the same"), &all[0], bench, &told[0], one)?;
    }
    let after = all[0].state().await;
    if let Step::Erase { .. } = step {
        before.keys().filter(|name| !after.contains_key(*name)).for_each(|name| model.forget(name));
    }
    if matches!(step, Step::Restart | Step::Repeat { .. } | Step::Publish) && *before != after {
        return Err(format!("nothing changes by itself: {step:?} changed the record"));
    }
    model.check(&Happened { step, before, after: &after, told: &told[0] })?;
    *before = after;
    Ok(())
}

/// Sends again what was accepted: the same answer, and nothing else.
async fn repeat(bench: &mut Bench, sent: Option<&Sent>) -> Result<Value, String> {
    let Some(sent) = sent else { return Ok(Value::Null) };
    let before = bench.submissions().await.len();
    bench.learn().await;
    let done = bench.store().commit(bench.site(), sent.original.clone(), sent.changes.clone(), None).await;
    let is_repeat = |commit: &Commit| commit.duplicate && commit.answer == sent.answer;
    if !done.as_ref().is_ok_and(is_repeat)
        || bench.learn().await > 0
        || bench.submissions().await.len() > before
    {
        return Err(format!("a repeat gets the same answer and changes nothing: on {}", bench.engine));
    }
    let told = match done {
        Ok(commit) => Ok(Commit { submission: 0, ..commit }),
        Err(error) => Err(error),
    };
    Ok(bench.told(&told))
}

/// What a step sends; `None` when there is nothing it could be about.
async fn submission(step: &Step, at: usize, bench: &Bench) -> Option<(Original, Vec<Change>)> {
    if let Some((sender, changes)) = step.message() {
        let of = [OriginalKind::V2, OriginalKind::V2, OriginalKind::Dicom, OriginalKind::Mpps];
        let identity = format!("SENDER {sender}");
        let control = Some((identity.clone(), format!("C{at}")));
        let original = original(of[usize::from(sender)], Some(identity), control, at);
        return Some((original, changes));
    }
    let change = correction(step, bench).await?;
    Some((original(OriginalKind::Fhir, None, None, at), vec![change]))
}

fn original(
    kind: OriginalKind,
    identity: Option<String>,
    control: Option<(String, String)>,
    at: usize,
) -> Original {
    Original {
        kind,
        listener: "model".into(),
        peer: None,
        identity,
        control,
        sha256: sha256(&at.to_be_bytes()),
        blob: None,
        bytes: None,
        content_type: "text/plain",
        received: received(),
        report: None,
        about: Default::default(),
    }
}

/// What a client writes.
async fn correction(step: &Step, bench: &Bench) -> Option<Change> {
    let replace = |of: &str, id: String, value: Value| {
        let resource = Resource::from_value(value).unwrap();
        Some(Change::new(Action::Replace(Target::Id(kind(of), id), resource)))
    };
    match step {
        Step::Edit { of, nth, text } => {
            let id = bench.id(of, *nth)?;
            let (mut content, _) = bench.content(of, &id).await?;
            content["language"] = ["en", "de", "fr"][usize::from(*text)].into();
            replace(of, id, content)
        }
        Step::Link { nth, to } => {
            let id = bench.id("Patient", *nth)?;
            let (mut content, is_there) = bench.content("Patient", &id).await?;
            let object = content.as_object_mut().filter(|_| is_there)?;
            object.remove("active");
            object.remove("link");
            if let Some(to) = to {
                let other = format!("Patient/{}", bench.id("Patient", *to)?);
                content["active"] = false.into();
                content["link"] = json!([{ "other": { "reference": other }, "type": "replaced-by" }]);
            }
            replace("Patient", id, content)
        }
        Step::Give { of, nth, to } => {
            let id = bench.id(of, *nth)?;
            let (mut content, is_there) = bench.content(of, &id).await?;
            content["subject"] = json!({ "reference": format!("Patient/{}", bench.id("Patient", *to)?) });
            if is_there { replace(of, id, content) } else { None }
        }
        Step::Erase { of, nth } => {
            Some(Change::new(Action::Delete(Target::Id(kind(of), bench.id(of, *nth)?))))
        }
        _ => None,
    }
}

/// Everything that can be read is the same on all engines.
async fn compare(all: &mut [Bench], is_end: bool) -> Result<(), String> {
    let mut read: Vec<Vec<(String, Value)>> = Vec::new();
    for bench in all.iter_mut() {
        let state = bench.state().await;
        if bench.engine == "memory" {
            searches_follow(bench, &state).await?;
        }
        let mut told = vec![("the record".to_owned(), serde_json::to_value(&state).unwrap())];
        if is_end {
            told.push(("the histories".into(), bench.histories().await.into()));
            told.push(("the submissions".into(), bench.submissions().await.into()));
            told.extend(searches(bench, &state).await);
        }
        read.push(told);
    }
    for (bench, told) in all.iter().zip(&read).skip(1) {
        for ((what, one), (_, other)) in read[0].iter().zip(told) {
            same(&format!("the same is read of {what}"), &all[0], bench, one, other)?;
        }
    }
    Ok(())
}

/// What searches find and include.
async fn searches(bench: &Bench, state: &State) -> Vec<(String, Value)> {
    let mut asked: Vec<(&str, String, String)> = Vec::new();
    for of in rules::HANGING {
        let parameter = if of == "ImagingStudy" { "patient" } else { "subject" };
        asked.push((of, format!("_include={of}:{parameter}"), "all".into()));
        for patient in state.keys().filter(|name| name.starts_with("patient-")) {
            let Some(id) = bench.id_of(patient) else { continue };
            asked.push((of, format!("{parameter}=Patient/{id}"), patient.clone()));
        }
    }
    for value in 0..3 {
        asked.push(("Patient", format!("identifier=N{value}"), String::new()));
        asked.push(("Patient", format!("identifier={}|N{value}", steps::DOMAIN), String::new()));
        asked.push(("ServiceRequest", format!("identifier=K{value}"), String::new()));
        asked.push(("ImagingStudy", format!("identifier=urn:dicom:uid|urn:oid:1.2.{value}"), String::new()));
        asked.push(("Observation", format!("value-quantity={value}"), String::new()));
    }
    for of in ["Patient", "ImagingStudy"] {
        asked.push((of, "_tag=urn:hilum:attention|identity-conflict".into(), String::new()));
    }
    asked.push(("Patient", "active=false&_revinclude=ServiceRequest:subject".into(), String::new()));
    asked.push(("Patient", "family=doe".into(), String::new()));
    let mut found = Vec::with_capacity(asked.len());
    for (of, text, about) in asked {
        let (matches, includes) = bench.find(of, &format!("{text}&_count=500")).await;
        found.push((format!("{of}?{} {about}", bench.named(&text)), json!([matches, includes])));
    }
    found
}

/// Two engines tell the same.
fn same(what: &str, one: &Bench, other: &Bench, left: &Value, right: &Value) -> Result<(), String> {
    if left == right {
        return Ok(());
    }
    let (left, right) = (difference(left, right), difference(right, left));
    Err(format!("{what}: {} says\n{left}\n{} says\n{right}\n", one.engine, other.engine))
}

/// The members of a value that another has not.
fn difference(value: &Value, other: &Value) -> Value {
    match (value, other) {
        (Value::Object(members), Value::Object(others)) => {
            let differs = |(name, member): &(&String, &Value)| others.get(*name) != Some(member);
            members.iter().filter(differs).map(|(name, member)| (name.clone(), member.clone())).collect()
        }
        (Value::Array(items), Value::Array(others)) => {
            items.iter().filter(|item| !others.contains(item)).cloned().collect()
        }
        _ => value.clone(),
    }
}

#[test]
fn the_same_seed_gives_the_same_sequence() {
    let text = |seed| format!("{:?}", sequence(seed));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}
