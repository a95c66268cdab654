//! From TOML to a type, saying everything that is wrong at once.
//!
//! Serde stops at the first fault. So each fault is noted, the value set aside, and reading starts
//! again, until it succeeds: a faulty key that may be left out is skipped; one that may not, and an
//! element of an array, whose successors must keep their indexes, gets a stand-in of its kind. What rests on a value set aside is not judged later.
//!
//! # Invariants
//! - Ends after a bounded number of rounds, whatever stands in the file.
//! - A value set aside never leaves this package: whoever gets a stand-in also gets a violation.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::Document;
use crate::fault::{Fault, nearest};
use crate::key::{Key, Step};
use crate::violation::{Place, Violation};

/// Rounds of reading. Each ends with a fault noted or with another stand-in tried.
const ROUNDS: usize = 1_000;

/// What reading gave.
pub(crate) struct Decoded<T> {
    /// The value, with stand-ins for what was wrong; none if not even that succeeded.
    pub(crate) value: Option<T>,
    /// What was wrong.
    pub(crate) found: Vec<Violation>,
    /// The keys that were set aside or stood in for.
    pub(crate) aside: BTreeSet<Key>,
}

/// Reads a `T`, with at most `most` violations before it gives up.
pub(crate) fn decode<T: DeserializeOwned>(
    file: &str,
    document: &Document<'_>,
    most: usize,
) -> Decoded<T> {
    let mut found = Vec::new();
    let mut repairs = Repairs::new();
    let mut unknown = BTreeMap::new();
    let mut value = None;
    for _ in 0..ROUNDS {
        let notes = Notes { repairs: &repairs, unknown: RefCell::default(), most };
        let root = Node { value: Source::Root(document.root()), at: Key::default(), notes: &notes };
        let outcome = T::deserialize(root);
        unknown.append(&mut notes.unknown.into_inner());
        match outcome {
            Ok(read) => {
                value = Some(read);
                break;
            }
            Err(fault) => match repair(&mut repairs, fault) {
                Repaired::First(key, Some(rule)) => found.push(Place::at(file, &key).lacks(rule)),
                Repaired::First(key, None) => {
                    found.push(Place::at(file, &key).misfit("is required".to_owned()));
                }
                Repaired::Again => {}
                Repaired::Not => break,
            },
        }
        if found.len() >= most {
            break;
        }
    }
    let unknown = unknown.into_iter().take(most.saturating_sub(found.len()));
    found
        .extend(unknown.map(|(key, known)| Place::at(file, &key).misfit(unknown_key(&key, known))));
    Decoded { value, found, aside: repairs.into_keys().collect() }
}

/// What a key that is none of `known` is told.
fn unknown_key(key: &Key, known: &[&str]) -> String {
    let name = match key.steps().last() {
        Some(Step::Name(name)) => name.as_str(),
        Some(Step::Index(_)) | None => "",
    };
    match nearest(name, known) {
        Some(known) => format!("is not a key here; did you mean `{known}`?"),
        None => format!("is not a key here; known are {}", known.join(", ")),
    }
}

/// What is done about keys that are missing or faulty.
type Repairs = BTreeMap<Key, Repair>;

#[derive(Clone, Copy)]
enum Repair {
    /// Left out, as if it did not stand there.
    Skip,
    /// Stood in for, by the candidate of this index.
    StandIn(usize),
}

enum Repaired {
    /// It was not known before. Without a rule, the key is missing.
    First(Key, Option<String>),
    /// It follows from one that was.
    Again,
    /// Nothing helps.
    Not,
}

/// Decides what the next round does about `fault`.
fn repair(repairs: &mut Repairs, fault: Fault) -> Repaired {
    let (key, rule) = fault.into_parts();
    let next = match (repairs.get(&key), &rule) {
        (Some(Repair::StandIn(candidate)), _) => Repair::StandIn(candidate + 1),
        (_, None) => Repair::StandIn(0), // missing, perhaps because it was skipped
        (None, Some(_)) if key.is_element() => Repair::StandIn(0),
        (None, Some(_)) => Repair::Skip,
        (Some(Repair::Skip), Some(_)) => return Repaired::Not, // nobody reads what is skipped
    };
    if matches!(next, Repair::StandIn(candidate) if candidate >= STAND_INS.len()) {
        return Repaired::Not;
    }
    let known = repairs.keys().any(|aside| key.is_within(aside));
    repairs.insert(key.clone(), next);
    if known {
        return Repaired::Again;
    }
    Repaired::First(key, rule)
}

/// Values that stand in for a faulty one, tried in this order until its type takes one.
const STAND_INS: [StandIn; 9] = [
    StandIn::Text("a"),
    StandIn::Text("127.0.0.1:1"),
    StandIn::Text("1s"),
    StandIn::Text("1MiB"),
    StandIn::Text("*"),
    StandIn::Number(1),
    StandIn::Bool(false),
    StandIn::Array,
    StandIn::Table,
];

#[derive(Clone, Copy)]
enum StandIn {
    Text(&'static str),
    Number(i64),
    Bool(bool),
    Array,
    Table,
}

/// What one round reads and writes beside the values.
struct Notes<'d> {
    repairs: &'d Repairs,
    /// Keys that their tables do not know, `most` of them, with those that they know.
    unknown: RefCell<BTreeMap<Key, &'static [&'static str]>>,
    most: usize,
}

impl Notes<'_> {
    /// What is done about the keys of the table at `at`, by name.
    fn repairs_within(&self, at: &Key) -> BTreeMap<&str, Repair> {
        let repairs = self.repairs.iter();
        repairs.filter_map(|(key, repair)| Some((key.name_within(at)?, *repair))).collect()
    }

    fn stand_in(&self, key: &Key) -> Option<StandIn> {
        match self.repairs.get(key) {
            Some(Repair::StandIn(candidate)) => STAND_INS.get(*candidate).copied(),
            Some(Repair::Skip) | None => None,
        }
    }

    fn refuse(&self, key: Key, known: &'static [&'static str]) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() < self.most {
            unknown.insert(key, known);
        }
    }
}

/// One value on its way into a type.
struct Node<'d, 't> {
    value: Source<'d, 't>,
    at: Key,
    notes: &'d Notes<'d>,
}

#[derive(Clone, Copy)]
enum Source<'d, 't> {
    Root(&'d DeTable<'t>),
    Written(&'d DeValue<'t>),
    StandIn(StandIn),
}

impl<'d, 't> Node<'d, 't> {
    /// The entries of a table that are read, with stand-ins for those of `fields` that need one.
    fn entries(
        &self,
        table: Option<&'d DeTable<'t>>,
        fields: Option<&'static [&'static str]>,
    ) -> Entries<'d, 't> {
        let repairs = self.notes.repairs_within(&self.at);
        let mut left: Vec<(&'d str, Source<'d, 't>)> = Vec::new();
        for (name, value) in table.into_iter().flatten() {
            let name: &'d str = name.get_ref();
            match fields {
                _ if repairs.contains_key(name) => {}
                Some(known) if !known.contains(&name) => {
                    self.notes.refuse(self.at.name(name), known);
                }
                _ => left.push((name, Source::Written(value.get_ref()))),
            }
        }
        for name in fields.unwrap_or_default() {
            if let Some(Repair::StandIn(candidate)) = repairs.get(name) {
                let value = STAND_INS.get(*candidate).copied().unwrap_or(StandIn::Table);
                left.push((name, Source::StandIn(value)));
            }
        }
        left.reverse(); // taken from the end
        Entries { left, value: None, at: self.at.clone(), notes: self.notes }
    }

    fn elements<'v, V: Visitor<'v>>(
        self,
        written: &'d [Spanned<DeValue<'t>>],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let count = written.len();
        let mut elements = Elements { left: written.iter().enumerate(), node: self };
        let value = visitor.visit_seq(&mut elements)?;
        match elements.left.len() {
            0 => Ok(value),
            left => Err(Fault::custom(format!("must have {} elements at most", count - left))),
        }
    }
}

impl<'de> Deserializer<'de> for Node<'_, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Source::Root(table) | Source::Written(DeValue::Table(table)) => {
                visitor.visit_map(self.entries(Some(table), None))
            }
            Source::Written(DeValue::Array(array)) => self.elements(array, visitor),
            Source::Written(DeValue::String(text)) => visitor.visit_str(text),
            Source::Written(DeValue::Boolean(value)) => visitor.visit_bool(*value),
            Source::Written(DeValue::Integer(digits)) => {
                match i64::from_str_radix(digits.as_str(), digits.radix()) {
                    Ok(value) => visitor.visit_i64(value),
                    Err(error) => Err(Fault::custom(format!("is not a whole number: {error}"))),
                }
            }
            Source::Written(DeValue::Float(digits)) => match digits.as_str().parse() {
                Ok(value) => visitor.visit_f64(value),
                Err(error) => Err(Fault::custom(format!("is not a number: {error}"))),
            },
            Source::Written(DeValue::Datetime(_)) => {
                Err(Fault::invalid_type(Unexpected::Other("a date or time"), &visitor))
            }
            Source::StandIn(StandIn::Text(text)) => visitor.visit_str(text),
            Source::StandIn(StandIn::Number(value)) => visitor.visit_i64(value),
            Source::StandIn(StandIn::Bool(value)) => visitor.visit_bool(value),
            Source::StandIn(StandIn::Array) => self.elements(&[], visitor),
            Source::StandIn(StandIn::Table) => visitor.visit_map(self.entries(None, None)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Source::Root(table) | Source::Written(DeValue::Table(table)) => {
                visitor.visit_map(self.entries(Some(table), Some(fields)))
            }
            Source::StandIn(StandIn::Table) => visitor.visit_map(self.entries(None, Some(fields))),
            // An array would do for serde, but nobody knows the order of the keys.
            Source::Written(DeValue::Array(_)) | Source::StandIn(StandIn::Array) => {
                Err(Fault::invalid_type(Unexpected::Seq, &visitor))
            }
            Source::Written(_) | Source::StandIn(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self) // TOML has no null: what stands there is some value
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Source::Written(DeValue::String(name)) => visitor.visit_enum(Word(name)),
            Source::StandIn(_) => visitor.visit_enum(Word(variants.first().unwrap_or(&""))),
            Source::Root(_) | Source::Written(_) => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The entries of a table, one after the other.
struct Entries<'d, 't> {
    left: Vec<(&'d str, Source<'d, 't>)>,
    value: Option<Node<'d, 't>>,
    at: Key,
    notes: &'d Notes<'d>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.left.pop() else { return Ok(None) };
        let at = self.at.name(name);
        let name: StrDeserializer<'_, Fault> = name.into_deserializer();
        let key = seed.deserialize(name).map_err(|fault| fault.at(&at))?;
        self.value = Some(Node { value, at, notes: self.notes });
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node = self.value.take().ok_or_else(|| Fault::custom("has a value without a key"))?;
        let at = node.at.clone();
        seed.deserialize(node).map_err(|fault| fault.at(&at))
    }
}

/// The elements of an array, one after the other.
struct Elements<'d, 't> {
    left: std::iter::Enumerate<std::slice::Iter<'d, Spanned<DeValue<'t>>>>,
    node: Node<'d, 't>,
}

impl<'de> SeqAccess<'de> for &mut Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, value)) = self.left.next() else { return Ok(None) };
        let at = self.node.at.index(index);
        let value = match self.node.notes.stand_in(&at) {
            Some(stand_in) => Source::StandIn(stand_in),
            None => Source::Written(value.get_ref()),
        };
        let node = Node { value, at: at.clone(), notes: self.node.notes };
        seed.deserialize(node).map(Some).map_err(|fault| fault.at(&at))
    }
}

/// A string that names a variant.
struct Word<'w>(&'w str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        Err(Fault::custom("must be a table"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::custom("must be a table"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        Err(Fault::custom("must be a table"))
    }
}
