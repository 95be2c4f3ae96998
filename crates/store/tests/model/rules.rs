//! What must hold whatever the engine, so that a rule broken in the planner that all engines share is found too (record.md, sections 1 to 6).

use std::collections::{BTreeMap, BTreeSet};

use hilum_fhir::Resource;
use hilum_fhir::validate::validate;
use serde_json::Value;

use crate::benches::{Bench, State};
use crate::steps::{self, Number, Person, Step, pair};

/// System of the number of a Patient kept apart.
const APART: &str = "urn:hilum:attention:numbers-of-several-patients";
/// Types that hang on a patient, and the search parameter that finds them.
pub(crate) const HANGING: [&str; 6] =
    ["ServiceRequest", "DiagnosticReport", "Observation", "Encounter", "Procedure", "ImagingStudy"];

/// What is known of a sequence so far beside the record itself.
#[derive(Default)]
pub(crate) struct Model {
    /// A client has corrected something: the strict rules of messages hold no more.
    corrected: bool,
    /// Study, series and SOP UID of each acknowledged image, and the patient it was sent for.
    images: BTreeSet<(String, String, String, Option<String>)>,
    /// What a sender said last of a resource, ms since 1970: for certain, and possibly.
    heard: BTreeMap<(u8, String), (i64, i64)>,
    /// Orders that were moved to another patient.
    moved: BTreeSet<String>,
}

/// A step with the record before and after it, and what was told of it.
pub(crate) struct Happened<'h> {
    pub(crate) step: &'h Step,
    pub(crate) before: &'h State,
    pub(crate) after: &'h State,
    pub(crate) told: &'h Value,
}

impl Happened<'_> {
    fn is_accepted(&self) -> bool {
        self.told.get("outcomes").is_some() && self.told["duplicate"] == false
    }

    fn outcome(&self, at: usize) -> (&str, &str) {
        let outcome = &self.told["outcomes"][at];
        (outcome["effect"].as_str().unwrap_or_default(), outcome["id"].as_str().unwrap_or_default())
    }
}

/// A rule that does not hold.
pub(crate) type Broken = Result<(), String>;

impl Model {
    /// Checks every rule that can be checked on one step.
    pub(crate) fn check(&mut self, happened: &Happened<'_>) -> Broken {
        self.corrected |= happened.step.is_correction() && happened.is_accepted();
        if happened.step.message().is_some() {
            if happened.is_accepted() {
                self.check_message(happened)?;
            } else {
                refused_changes_nothing(happened)?;
            }
        }
        valid(happened.after)?;
        self.images_are_shown(happened.after)?;
        if !self.corrected {
            one_patient_bears_a_number(happened.after)?;
            replaced_are_inactive(happened.after)?;
            self.nothing_of_another_patient(happened.after)?;
        }
        Ok(())
    }

    fn check_message(&mut self, happened: &Happened<'_>) -> Broken {
        nothing_changed_its_patient(happened)?;
        reports_keep_their_service(happened)?;
        let (step, after) = (happened.step, happened.after);
        match step {
            Step::Image { person, uids, .. } => {
                let patient = image_patient(after, person)?;
                let (study, series) = (steps::study_uid(uids.study), steps::series_uid(uids.series));
                self.images.insert((study, series, steps::sop_uid(uids.own), patient));
            }
            Step::Patient { person, .. }
            | Step::Order { person, .. }
            | Step::Result { person, .. }
            | Step::Visit { person, .. } => numbers_lead_to_one(happened, &person.numbers)?,
            Step::Perform { person, names_study: true, .. } if !person.numbers.is_empty() => {
                numbers_lead_to_one(happened, &person.numbers)?;
            }
            Step::Supersede { survivor, priors, .. } => {
                let all: Vec<Number> = survivor.numbers.iter().chain(priors).copied().collect();
                numbers_lead_to_one(happened, &all)?;
            }
            Step::Move { order: Some(_), .. } => {
                self.moved.insert(happened.outcome(2).1.to_owned());
            }
            _ => {}
        }
        few_patients_are_made(happened)?;
        self.late_is_per_sender(happened)
    }

    /// Late is what is older than the same sender's last word on a resource, and nothing else; it changes nothing.
    fn late_is_per_sender(&mut self, happened: &Happened<'_>) -> Broken {
        let (Step::Patient { said, .. }
        | Step::Order { said, .. }
        | Step::Result { said, .. }
        | Step::Visit { said, .. }
        | Step::Supersede { said, .. }
        | Step::Move { said, .. }) = happened.step
        else {
            return Ok(());
        };
        let clock = steps::clock(said);
        let count = happened.told["outcomes"].as_array().map_or(0, Vec::len);
        let changes = happened.step.message().map(|(_, changes)| changes).unwrap_or_default();
        let mut seen = Vec::new();
        for (at, change) in changes.iter().enumerate().take(count) {
            let (effect, name) = happened.outcome(at);
            if name.is_empty() {
                continue;
            }
            let is_merge = matches!(change.action, hilum_fhir::Action::Merge(..));
            let known = self.heard.get(&(said.sender, name.to_owned())).copied();
            let must = clock.zip(known).is_some_and(|(clock, (certain, _))| clock < certain);
            let may = clock.zip(known).is_some_and(|(clock, (_, possible))| clock < possible);
            let is_late = effect == "Late";
            if is_merge && ((is_late && !may) || (!is_late && must)) {
                return Err(format!(
                    "late is per sender: change {at} of {name} is {effect} at {clock:?}, heard {known:?}"
                ));
            }
            if is_late && count == 1 && happened.before.get(name) != happened.after.get(name) {
                return Err(format!("what is late changes nothing: {name}"));
            }
            let is_certain = matches!(effect, "Created" | "Updated") || (is_merge && !is_late);
            if !change.in_passing {
                seen.push((name.to_owned(), is_certain));
            }
        }
        if matches!(happened.step, Step::Supersede { .. }) {
            let is_changed = |name: &&String| happened.before.get(*name) != happened.after.get(*name);
            let patients = happened.after.keys().filter(|name| name.starts_with("patient-"));
            seen.extend(patients.filter(is_changed).map(|name| (name.clone(), true)));
        }
        if let Some(clock) = clock {
            for (name, is_certain) in seen {
                let entry = self.heard.entry((said.sender, name)).or_insert((i64::MIN, i64::MIN));
                entry.1 = entry.1.max(clock);
                if is_certain {
                    entry.0 = entry.0.max(clock);
                }
            }
        }
        Ok(())
    }

    /// A resource that was deleted may begin anew: what was heard of it is certain no more.
    pub(crate) fn forget(&mut self, name: &str) {
        for ((_, of), (certain, _)) in &mut self.heard {
            if of == name {
                *certain = i64::MIN;
            }
        }
    }

    /// Each acknowledged image is shown in a study of its patient, and no study shows any other.
    fn images_are_shown(&self, state: &State) -> Broken {
        let mut shown: BTreeSet<(String, String, String, Option<String>)> = BTreeSet::new();
        for study in of_type(state, "imagingstudy-") {
            let uid =
                study["identifier"][0]["value"].as_str().unwrap_or_default().trim_start_matches("urn:oid:");
            let patient = subject(study).map(|name| follow(state, &name));
            let mut count = 0;
            for series in study["series"].as_array().into_iter().flatten() {
                for instance in series["instance"].as_array().into_iter().flatten() {
                    count += 1;
                    let text = |value: &Value| value["uid"].as_str().unwrap_or_default().to_owned();
                    shown.insert((uid.to_owned(), text(series), text(instance), patient.clone()));
                }
            }
            if patient != subject(study) {
                return Err(format!("a study is of who is left: {}", study["subject"]));
            }
            if study["numberOfInstances"] != count {
                return Err(format!("a study counts what it lists: {study}"));
            }
        }
        let followed = |name: &Option<String>| name.as_ref().map(|name| follow(state, name));
        for (study, series, sop, patient) in &self.images {
            let patient = followed(patient);
            let fits = |(a, b, c, of): &(String, String, String, Option<String>)| {
                (a, b, c) == (study, series, sop) && (patient.is_none() || self.corrected || *of == patient)
            };
            if !shown.iter().any(fits) {
                return Err(format!("an acknowledged image is shown: {study} {series} {sop} of {patient:?}"));
            }
        }
        for (study, series, sop, patient) in &shown {
            let fits = |(a, b, c, of): &(String, String, String, Option<String>)| {
                (a, b, c) == (study, series, sop)
                    && (self.corrected || patient.is_none() || of.is_none() || followed(of) == *patient)
            };
            if !self.images.iter().any(fits) {
                return Err(format!("a study shows only its images: {study} {series} {sop} of {patient:?}"));
            }
        }
        Ok(())
    }

    /// Nothing is linked to an order or a performed step of another patient.
    fn nothing_of_another_patient(&self, state: &State) -> Broken {
        for (name, resource) in state {
            let Some(own) = subject(resource).map(|name| follow(state, &name)) else { continue };
            let lists = [&resource["basedOn"], &resource["partOf"]];
            for link in lists.into_iter().filter_map(Value::as_array).flatten() {
                let Some((_, to)) = link["reference"].as_str().and_then(|text| text.split_once('/')) else {
                    continue;
                };
                let of = state.get(to).and_then(subject).map(|name| follow(state, &name));
                // what was linked before its order was moved is told by the one who moves
                let is_drawn = name.starts_with("imagingstudy-");
                if of.is_some_and(|of| of != own) && (is_drawn || !self.moved.contains(to)) {
                    return Err(format!("nothing of another patient: {name} refers to {to}"));
                }
            }
        }
        Ok(())
    }
}

/// What every search by a patient finds is what hangs on it and on those it replaced.
pub(crate) async fn searches_follow(bench: &Bench, state: &State) -> Broken {
    for patient in state.keys().filter(|name| name.starts_with("patient-")) {
        let Some(id) = bench.id_of(patient) else { continue };
        for of in HANGING {
            let prefix = format!("{}-", of.to_lowercase());
            let hangs = |(name, resource): &(&String, &Value)| {
                name.starts_with(&prefix)
                    && subject(resource).is_some_and(|on| leads_over(state, &on, patient))
            };
            let mut expected: Vec<String> =
                state.iter().filter(hangs).map(|(name, _)| name.clone()).collect();
            expected.sort_unstable();
            let parameter = if of == "ImagingStudy" { "patient" } else { "subject" };
            let found = bench.find(of, &format!("{parameter}=Patient/{id}&_count=500")).await.0;
            if found != expected {
                return Err(format!(
                    "searches follow merges: {of} of {patient}: {found:?}, not {expected:?}"
                ));
            }
            let included = bench.find("Patient", &format!("_id={id}&_revinclude={of}:{parameter}")).await.1;
            if included != expected {
                return Err(format!(
                    "includes follow merges: {of} of {patient}: {included:?}, not {expected:?}"
                ));
            }
        }
    }
    Ok(())
}

fn of_type<'s>(state: &'s State, prefix: &str) -> impl Iterator<Item = &'s Value> {
    state.iter().filter(move |(name, _)| name.starts_with(prefix)).map(|(_, resource)| resource)
}

/// The name of the patient a resource is of.
fn subject(resource: &Value) -> Option<String> {
    let reference = resource["subject"]["reference"].as_str()?;
    reference.strip_prefix("Patient/").map(str::to_owned)
}

/// Who replaces a patient, when it is there.
fn next(state: &State, patient: &str) -> Option<String> {
    let links = state.get(patient)?["link"].as_array()?;
    let link = links.iter().find(|link| link["type"] == "replaced-by")?;
    let next = link["other"]["reference"].as_str()?.strip_prefix("Patient/")?;
    state.contains_key(next).then(|| next.to_owned())
}

/// The patient that one leads to.
fn follow(state: &State, patient: &str) -> String {
    let mut at = patient.to_owned();
    for _ in 0..64 {
        match next(state, &at) {
            Some(next) => at = next,
            None => break,
        }
    }
    at
}

/// Whether the way from one patient to its survivor leads over another.
fn leads_over(state: &State, from: &str, over: &str) -> bool {
    let mut at = Some(from.to_owned());
    for _ in 0..64 {
        match at {
            Some(name) if name == over => return true,
            Some(name) => at = next(state, &name),
            None => break,
        }
    }
    false
}

/// The patients that numbers lead to; of several the active ones.
fn leads(state: &State, numbers: &[Number]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for number in numbers {
        let (system, value) = pair(*number);
        for (name, patient) in state.iter().filter(|(name, _)| name.starts_with("patient-")) {
            let bears = patient["identifier"].as_array().into_iter().flatten();
            if bears.into_iter().any(|known| known["system"] == system && known["value"] == value) {
                found.insert(follow(state, name));
            }
        }
    }
    if found.len() > 1 {
        let active: BTreeSet<String> =
            found.iter().filter(|name| state[*name]["active"] != false).cloned().collect();
        if !active.is_empty() {
            return active;
        }
    }
    found
}

fn refused_changes_nothing(happened: &Happened<'_>) -> Broken {
    if happened.told["duplicate"] == true {
        return Ok(());
    }
    if matches!(happened.step, Step::Image { .. }) {
        return Err(format!("an image is never turned away: {}", happened.told));
    }
    if happened.before != happened.after {
        return Err("what is refused changes nothing".into());
    }
    Ok(())
}

/// Only merges and moves give anything another patient.
fn nothing_changed_its_patient(happened: &Happened<'_>) -> Broken {
    if matches!(happened.step, Step::Move { .. }) {
        return moved_only_what_it_names(happened);
    }
    for (name, resource) in happened.before {
        let Some(was) = subject(resource) else { continue };
        let Some(now) = happened.after.get(name) else {
            return Err(format!("a message deletes nothing: {name}"));
        };
        let is = subject(now).unwrap_or_default();
        if follow(happened.after, &was) != follow(happened.after, &is) {
            return Err(format!("nothing changes its patient: {name} was of {was}, is of {is}"));
        }
    }
    Ok(())
}

/// One number may stand for several panels: the result of another service is another report.
fn reports_keep_their_service(happened: &Happened<'_>) -> Broken {
    for (name, report) in happened.before.iter().filter(|(name, _)| name.starts_with("diagnosticreport-")) {
        if happened.after.get(name).is_some_and(|now| now["code"] != report["code"]) {
            return Err(format!("a report keeps its service: {name} was of {}", report["code"]));
        }
    }
    Ok(())
}

fn moved_only_what_it_names(happened: &Happened<'_>) -> Broken {
    let named = happened.outcome(2).1;
    for (name, resource) in happened.before {
        let now = happened.after.get(name);
        let is_drawn = name.starts_with("imagingstudy-");
        if name != named && !is_drawn && now.and_then(subject) != subject(resource) {
            return Err(format!("a move moves what it names: {name} moved, {named} was named"));
        }
    }
    let to = happened.outcome(0).1;
    let is = happened.after.get(named).and_then(subject).unwrap_or_default();
    if follow(happened.after, &is) != follow(happened.after, to) {
        return Err(format!("a move moves to the patient named: {named} is of {is}, not {to}"));
    }
    Ok(())
}

/// After an accepted message all its numbers lead to one patient.
fn numbers_lead_to_one(happened: &Happened<'_>, numbers: &[Number]) -> Broken {
    let count = happened.told["outcomes"].as_array().map_or(0, Vec::len);
    if (0..count).any(|at| happened.outcome(at).0 == "Late") {
        return Ok(());
    }
    let found = leads(happened.after, numbers);
    match found.len() {
        1 => Ok(()),
        _ => Err(format!("numbers lead to one patient: {numbers:?} lead to {found:?}")),
    }
}

/// No patient is made where a number was known, and never two.
fn few_patients_are_made(happened: &Happened<'_>) -> Broken {
    let person = match happened.step {
        Step::Patient { person, .. }
        | Step::Order { person, .. }
        | Step::Result { person, .. }
        | Step::Visit { person, .. }
        | Step::Image { person, .. }
        | Step::Perform { person, .. } => person,
        _ => return Ok(()),
    };
    let is_patient = |name: &&String| name.starts_with("patient-") && !happened.before.contains_key(*name);
    let made = happened.after.keys().filter(is_patient).count();
    let known = leads(happened.before, &person.numbers).len();
    let is_image = matches!(happened.step, Step::Image { .. });
    let fits = match known {
        0 => made <= 1,
        1 => made == 0,
        // an image whose numbers disagree is kept with a patient of its own
        _ => is_image && made <= 1,
    };
    if !fits {
        return Err(format!("few patients are made: {made} made, numbers led to {known}"));
    }
    let is_joined = happened.told["remarks"].to_string().contains("\"joined\"");
    if known == 0 && made == 0 && !is_joined && !person.numbers.is_empty() && has_patient(happened.step) {
        return Err("who is joined with a known patient is told so".into());
    }
    if known == 0 && made == 0 && is_joined {
        joined_is_the_same_person(happened, person)?;
    }
    Ok(())
}

/// Who is joined has the value, and unless an order or study says so the birth date and the family name too.
fn joined_is_the_same_person(happened: &Happened<'_>, person: &Person) -> Broken {
    for name in leads(happened.after, &person.numbers) {
        let Some(patient) = happened.before.get(&name) else { continue };
        let identifiers = patient["identifier"].as_array().into_iter().flatten();
        let mut values = identifiers.filter_map(|identifier| identifier["value"].as_str());
        let has_value = values.any(|known| person.numbers.iter().any(|number| pair(*number).1 == known));
        let by_birth_date =
            happened.told["remarks"].to_string().contains("the birth date and the family name");
        let is_same = person.birth_date().is_some_and(|date| patient["birthDate"] == date)
            && person.family().is_some_and(|family| patient["name"][0]["family"] == family);
        if !has_value || (by_birth_date && !is_same) {
            return Err(format!("who is joined is the same person: {name} for {person:?}"));
        }
    }
    Ok(())
}

fn has_patient(step: &Step) -> bool {
    !matches!(step, Step::Perform { .. })
}

/// The patient an image is of: that its numbers lead to, else one kept apart; `None` = nobody is named.
fn image_patient(state: &State, person: &Person) -> Result<Option<String>, String> {
    if person.numbers.is_empty() {
        return Ok(None);
    }
    let found = leads(state, &person.numbers);
    if let (1, Some(one)) = (found.len(), found.first()) {
        return Ok(Some(one.clone()));
    }
    let mut all: Vec<String> = person
        .numbers
        .iter()
        .map(|number| pair(*number))
        .map(|(system, value)| format!("{system}|{value}"))
        .collect();
    all.sort_unstable();
    let value = all.join(" ");
    let is_apart = |(name, patient): &(&String, &Value)| {
        let identifier = &patient["identifier"][0];
        name.starts_with("patient-") && identifier["system"] == APART && identifier["value"] == value
    };
    let apart = state.iter().find(is_apart).map(|(name, _)| name.clone());
    match apart {
        Some(name) => Ok(Some(name)),
        None => Err(format!("an image has a patient: numbers lead to {found:?}, and nobody is kept apart")),
    }
}

fn one_patient_bears_a_number(state: &State) -> Broken {
    for system in 0..3 {
        for value in 0..3 {
            let found = leads(state, &[(system, value)]);
            if found.len() > 1 {
                return Err(format!(
                    "one active patient bears a number: {found:?} bear {:?}",
                    (system, value)
                ));
            }
        }
    }
    Ok(())
}

fn replaced_are_inactive(state: &State) -> Broken {
    for (name, patient) in state.iter().filter(|(name, _)| name.starts_with("patient-")) {
        if next(state, name).is_some() != (patient["active"] == false) {
            return Err(format!("who is replaced is inactive, and nobody else: {name}"));
        }
    }
    Ok(())
}

fn valid(state: &State) -> Broken {
    for (name, resource) in state {
        let resource =
            Resource::from_value(resource.clone()).map_err(|issue| format!("{name}: {issue:?}"))?;
        if let Some(issue) = validate(&resource).first() {
            return Err(format!(
                "what is stored is valid: {name}: {} {:?}",
                issue.diagnostics, issue.location
            ));
        }
    }
    Ok(())
}
