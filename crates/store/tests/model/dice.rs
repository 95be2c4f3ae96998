//! Which sequences there are: drawn from a seed, so that contradictions, joins and repeats are likely.

use crate::steps::{BIRTH_DATES, FAMILIES, Number, OrderNumbers, Person, SYSTEMS, Said, Step, TYPES, Uids};

/// A small generator of numbers (SplitMix64): the same seed gives the same sequence on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below a limit.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn small(&mut self, limit: u64) -> u8 {
        u8::try_from(self.below(limit)).unwrap()
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }
}

/// A sequence of steps. Half of all sequences have no REST corrections, so that the strict rules of messages are tested on them.
pub(crate) fn sequence(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let with_rest = dice.one_in(2);
    let length = 8 + dice.index(18);
    (0..length)
        .map(|_| if with_rest && dice.one_in(3) { rest(&mut dice) } else { message(&mut dice) })
        .collect()
}

fn message(dice: &mut Dice) -> Step {
    match dice.below(25) {
        0..=3 => Step::Patient { said: said(dice), person: person(dice), ensure: dice.one_in(3) },
        4..=6 => Step::Supersede { said: said(dice), survivor: person(dice), priors: person(dice).numbers },
        7..=9 => {
            let status = (!dice.one_in(3)).then(|| dice.small(2));
            let study = dice.one_in(4).then(|| dice.small(2));
            Step::Order { said: said(dice), person: person(dice), numbers: order(dice), status, study }
        }
        10..=12 => Step::Result {
            said: said(dice),
            person: person(dice),
            numbers: of_result(dice),
            value: dice.small(4),
            names_order: dice.one_in(3),
            step: dice.one_in(2).then(|| dice.small(2)),
        },
        13 | 24 => {
            let number = (!dice.one_in(3), dice.small(2));
            let (said, person) = (said(dice), person(dice));
            Step::Visit { said, person, number, status: dice.small(2), plain: dice.one_in(2) }
        }
        14 => {
            let order = dice.one_in(2).then(|| order(dice));
            let visit = (dice.one_in(2), dice.small(2));
            Step::Move { said: said(dice), from: person(dice), to: person(dice), order, visit }
        }
        15..=18 => {
            let nobody = dice.one_in(5);
            let person =
                Person { numbers: if nobody { Vec::new() } else { person(dice).numbers }, ..person(dice) };
            Step::Image { person, uids: uids(dice), content: dice.small(2) }
        }
        19..=20 => {
            let nobody = dice.one_in(2);
            let person =
                Person { numbers: if nobody { Vec::new() } else { person(dice).numbers }, ..person(dice) };
            Step::Perform { person, uids: uids(dice), status: dice.small(3), names_study: !dice.one_in(4) }
        }
        21 => Step::Publish,
        22 => Step::Repeat { back: dice.index(6) },
        _ => Step::Restart,
    }
}

fn rest(dice: &mut Dice) -> Step {
    let (of, nth) = (dice.one_of(&TYPES), dice.index(4));
    match dice.below(6) {
        0 => Step::Edit { of, nth, text: dice.small(3) },
        1 => Step::Link { nth, to: Some(dice.index(4)) },
        2 | 3 => Step::Link { nth, to: None },
        4 => Step::Give { of: dice.one_of(&TYPES[1..]), nth, to: dice.index(4) },
        _ => Step::Erase { of, nth },
    }
}

fn said(dice: &mut Dice) -> Said {
    Said { sender: dice.small(2), minute: (!dice.one_in(4)).then(|| i64::from(dice.small(12))) }
}

/// One of three people by some of their numbers, or anybody: so there are joins, and there are contradictions.
fn person(dice: &mut Dice) -> Person {
    let whose = (!dice.one_in(4)).then(|| dice.small(3));
    let mut numbers: Vec<Number> = Vec::new();
    for _ in 0..1 + dice.below(2) {
        let number = (dice.index(SYSTEMS.len()), whose.unwrap_or_else(|| dice.small(3)));
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let known = |whose: u8| usize::from(whose % 2);
    let birth = whose.filter(|_| !dice.one_in(6)).map_or_else(|| dice.index(BIRTH_DATES.len()), known);
    let family = whose.map_or_else(|| dice.index(FAMILIES.len()), known);
    Person { numbers, birth, family }
}

fn order(dice: &mut Dice) -> OrderNumbers {
    let mut filler = (!dice.one_in(3)).then(|| (!dice.one_in(3), dice.small(2)));
    let placer = (!dice.one_in(3)).then(|| (!dice.one_in(3), dice.small(2)));
    if filler.is_none() && placer.is_none() {
        filler = Some((true, dice.small(2)));
    }
    let accession = (!dice.one_in(3)).then(|| dice.small(2));
    let code = (!dice.one_in(4)).then(|| dice.small(2));
    OrderNumbers { filler, placer, accession, code, by_code: dice.one_in(2) }
}

/// Half of the results have a number without an authority, which only the service tells apart.
fn of_result(dice: &mut Dice) -> OrderNumbers {
    let numbers = OrderNumbers { by_code: true, ..order(dice) };
    match dice.one_in(2) {
        true => OrderNumbers { filler: Some((false, dice.small(2))), ..numbers },
        false => numbers,
    }
}

fn uids(dice: &mut Dice) -> Uids {
    let accession = (!dice.one_in(3)).then(|| dice.small(2));
    Uids { study: dice.small(2), series: dice.small(2), own: dice.small(3), accession }
}
