//! Random resources by the schema go round, and random damage to documents makes nothing worse than an issue.

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::ResourceType;
use crate::validate::primitive::Primitive;
use crate::validate::schema::{Child, Definition, Kind, SCHEMA};

/// Numbers that decide what is made; when they are used up the answer is 0, with which everything ends.
struct Dice {
    numbers: std::vec::IntoIter<u16>,
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.numbers.next().unwrap_or(0)) % n
    }

    fn of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }
}

const DEPTH_MAX: usize = 5;

fn resource(dice: &mut Dice, depth: usize) -> Map<String, Value> {
    let of = ResourceType::all().nth(dice.below(146)).unwrap();
    let mut map = Map::from_iter([("resourceType".to_owned(), json!(of.name()))]);
    members(dice, SCHEMA.get(of.name()).unwrap(), depth, &mut map);
    map
}

fn object(dice: &mut Dice, definition: &Definition, depth: usize) -> Value {
    let mut map = Map::new();
    members(dice, definition, depth, &mut map);
    if map.is_empty() {
        map.insert("id".to_owned(), json!("i"));
    }
    Value::Object(map)
}

fn members(dice: &mut Dice, definition: &Definition, depth: usize, map: &mut Map<String, Value>) {
    let all: Vec<(&str, &Child)> = definition.members().collect();
    let mut chosen: Vec<u8> = Vec::new();
    for _ in 0..dice.below(6) {
        let (name, child) = all[dice.below(all.len())];
        let is_deep = depth >= DEPTH_MAX && !matches!(child.kind, Kind::Primitive(_));
        if is_deep || chosen.contains(&child.order) {
            continue;
        }
        chosen.push(child.order);
        if child.attribute {
            map.insert(name.to_owned(), json!(text(dice)));
        } else if let Kind::Primitive(primitive) = child.kind {
            primitives(dice, name, primitive, child.repeats, depth, map);
        } else if child.repeats {
            let items = (0..=dice.below(3)).map(|_| composite(dice, child, depth)).collect();
            map.insert(name.to_owned(), Value::Array(items));
        } else {
            map.insert(name.to_owned(), composite(dice, child, depth));
        }
    }
}

fn composite(dice: &mut Dice, child: &Child, depth: usize) -> Value {
    match child.kind {
        Kind::Object(number) => object(dice, SCHEMA.at(number.unwrap()), depth + 1),
        _ => Value::Object(resource(dice, depth + 1)),
    }
}

/// A primitive, or a list of them, with siblings here and there.
fn primitives(
    dice: &mut Dice,
    name: &str,
    primitive: Primitive,
    repeats: bool,
    depth: usize,
    map: &mut Map<String, Value>,
) {
    let (mut values, mut siblings) = (Vec::new(), Vec::new());
    for _ in 0..=(if repeats { dice.below(4) } else { 0 }) {
        let parts = if matches!(primitive, Primitive::Xhtml) { 0 } else { dice.below(6) };
        values.push(if parts == 1 { Value::Null } else { value(dice, primitive) });
        let has_sibling = parts == 1 || parts == 2;
        let element = SCHEMA.get("Element").unwrap();
        siblings.push(if has_sibling { object(dice, element, depth + 1) } else { Value::Null });
    }
    for (name, mut items) in [(name.to_owned(), values), (format!("_{name}"), siblings)] {
        if !items.iter().all(Value::is_null) {
            let value = if repeats { Value::Array(items) } else { items.remove(0) };
            map.insert(name, value);
        }
    }
}

fn value(dice: &mut Dice, primitive: Primitive) -> Value {
    match primitive {
        Primitive::Boolean => json!(dice.below(2) == 1),
        Primitive::Integer | Primitive::UnsignedInt | Primitive::PositiveInt => json!(dice.below(70_000)),
        Primitive::Decimal => {
            let digits = ["0", "-0", "1.00", "100", "1e+2", "-1.5e-400", "0.000000000000000000010", "9e999"];
            Value::Number(dice.of(&digits).parse().unwrap())
        }
        Primitive::Xhtml => {
            let content = ["", "x &amp; y", "<p class='a'> <b>x</b>\r\n</p>", "<br /><!-- z -->&#160;"];
            json!(format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{}</div>", dice.of(&content)))
        }
        _ => json!(text(dice)),
    }
}

fn text(dice: &mut Dice) -> String {
    let pieces = [
        "a", " ", "&", "<", ">", "\"", "'", "\t", "\n", "\r", "\r\n", "ü", "🩺", "\u{85}", "]]>", "&lt;",
        "\u{fffd}",
    ];
    (0..=dice.below(4)).map(|_| dice.of(&pieces)).collect()
}

fn random_resource() -> impl Strategy<Value = Resource> {
    proptest::collection::vec(any::<u16>(), 1..400).prop_map(|numbers| {
        let mut dice = Dice { numbers: numbers.into_iter() };
        Resource::from_value(Value::Object(resource(&mut dice, 0))).unwrap()
    })
}

/// What narratives are broken with.
const SCRAPS: [&str; 28] = [
    "x",
    " ",
    "<p>",
    "</p>",
    "<p",
    ">",
    "/>",
    "<br/>",
    "</div>",
    "<div>",
    "</text>",
    "<text>",
    "<!--",
    "-->",
    "--",
    "<![CDATA[",
    "]]>",
    "&",
    "amp;",
    "&#65;",
    "&#1;",
    "<?x",
    "?>",
    " a='b'",
    " a=\"",
    "\"",
    "</Patient>",
    "<h:p/>",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn json_to_xml_to_json_is_the_same_resource(resource in random_resource()) {
        let limits = Limits::default();
        let text = write(&resource).unwrap();
        let back = read(&text, &limits).unwrap();
        prop_assert_eq!(&back, &resource);
        prop_assert_eq!(write(&back).unwrap(), text);
    }

    #[test]
    fn a_depth_means_the_same_in_json_and_in_xml(resource in random_resource()) {
        let (xml, json_text) = (write(&resource).unwrap(), resource.to_value().to_string());
        // elements of a narrative count in xml only
        prop_assume!(!json_text.contains("\"div\""));
        for depth_max in 1..24 {
            let in_json = json::parse(json_text.as_bytes(), &json::Limits { depth_max, ..Default::default() });
            let in_xml = read(&xml, &Limits { depth_max, ..Default::default() });
            prop_assert_eq!(in_json.is_ok(), in_xml.is_ok(), "{} {}", depth_max, json_text);
        }
    }

    #[test]
    fn what_is_read_of_a_damaged_document_can_be_written(
        resource in random_resource(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, any::<prop::sample::Index>()), 1..5),
    ) {
        let mut text = write(&resource).unwrap();
        for (at, what, other) in damage {
            let at = at.index(text.len());
            match what {
                0..=7 => text[at] = b"<>/\"&= x"[what],
                8 => text.truncate(at.max(1)),
                9 => drop(text.remove(at)),
                _ => {
                    let (from, to) = (at.min(other.index(text.len())), at.max(other.index(text.len())));
                    let piece = text[from..to].to_vec();
                    text.splice(to..to, piece);
                }
            }
            if text.is_empty() {
                break;
            }
        }
        if let Ok(read_once) = read(&text, &Limits::default()) {
            let written = write(&read_once).unwrap();
            prop_assert_eq!(read(&written, &Limits::default()).unwrap(), read_once);
        }
    }

    #[test]
    fn a_narrative_of_scraps_is_refused_or_reads_back_as_it_was(scraps in proptest::collection::vec(0..SCRAPS.len(), 0..12)) {
        let content: String = scraps.into_iter().map(|scrap| SCRAPS[scrap]).collect();
        let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{content}</div>");
        let resource = json!({ "resourceType": "Patient", "text": { "status": "additional", "div": div } });
        if let Ok(written) = write_value(resource.clone()) {
            prop_assert_eq!(read_text(&written).unwrap(), resource);
        }
    }
}
