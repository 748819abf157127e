//! Compiles the `.proto` files without protoc: messages and services by prost and tonic, and the
//! rules that stand beside the fields into the table that `src/event.rs` walks.

use std::{collections::BTreeMap, env, error::Error, fmt::Write as _, fs, path::Path};

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};

#[expect(clippy::disallowed_methods, reason = "a build that is cut off is made again")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=access_ledger");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out_dir = env::var("OUT_DIR")?;
    let out_dir = Path::new(&out_dir);
    fs::write(out_dir.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out_dir.join("schema.rs"), schema(&compiler.descriptor_pool())?)?;
    tonic_prost_build::configure()
        .build_transport(false)
        // A test's server answers what the test asks, and UNIMPLEMENTED to all else.
        .generate_default_stubs(true)
        .bytes(".")
        .codec_path("crate::wire::codec::MessageCodec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

const FILES: [&str; 6] = [
    "access_ledger/v1/rules.proto",
    "access_ledger/v1/event.proto",
    "access_ledger/v1/control.proto",
    "access_ledger/v1/facts.proto",
    "access_ledger/v1/recorder.proto",
    "access_ledger/v1/audit.proto",
];

/// The messages whose bytes `event.rs` judges; all that they contain comes along.
const ROOTS: [(&str, &str); 10] = [
    ("EVENT", "access_ledger.v1.Event"),
    ("GENESIS", "access_ledger.v1.Genesis"),
    ("DATASET", "access_ledger.v1.Dataset"),
    ("REGISTERED_TOOL", "access_ledger.v1.RegisteredTool"),
    ("SITE", "access_ledger.v1.Site"),
    ("RETENTION", "access_ledger.v1.Retention"),
    ("CUSTODIAN", "access_ledger.v1.Custodian"),
    ("SOURCE_KEY", "access_ledger.v1.SourceKey"),
    ("SOURCE_ROLES", "access_ledger.v1.SourceRoles"),
    ("LEDGER_KEY", "access_ledger.v1.LedgerKey"),
];

/// Defaults of `rules.proto`.
const LEN_MAX: u32 = 256;
const ITEMS_MAX: u32 = 1_024;

/// `src/event.rs` keeps one counter a field on the stack, and one bit.
const FIELDS_MAX: usize = 32;

/// Fields are found by a table that is as long as the largest number.
const NUMBER_MAX: usize = 63;

fn schema(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut places = BTreeMap::new();
    let mut messages = Vec::new();
    for (_, root) in ROOTS {
        let message = pool.get_message_by_name(root).ok_or("a root message is missing")?;
        place(&message, &mut places, &mut messages, 0)?;
    }
    let mut out = String::from("static MESSAGES: &[Message] = &[\n");
    for message in &messages {
        write_message(&mut out, pool, message, &places)?;
    }
    out.push_str("];\n");
    for (constant, root) in ROOTS {
        let place = places.get(root).ok_or("a root message has no place")?;
        writeln!(out, "const {constant}: usize = {place};")?;
    }
    Ok(out)
}

/// Gives `message` and all that it contains a place in the table.
fn place(
    message: &MessageDescriptor,
    places: &mut BTreeMap<String, usize>,
    messages: &mut Vec<MessageDescriptor>,
    depth: usize,
) -> Result<(), Box<dyn Error>> {
    // A message that contains itself would let input decide how deep the validator recurses.
    if depth > 8 {
        return Err(format!("{} is nested too deeply", message.full_name()).into());
    }
    if message.fields().len() > FIELDS_MAX {
        return Err(format!("{} has too many fields", message.full_name()).into());
    }
    if !places.contains_key(message.full_name()) {
        places.insert(message.full_name().to_owned(), messages.len());
        messages.push(message.clone());
    }
    for field in message.fields() {
        if let Kind::Message(inner) = field.kind()
            && !inner.full_name().starts_with("google.protobuf.")
        {
            place(&inner, places, messages, depth + 1)?;
        }
    }
    Ok(())
}

fn write_message(
    out: &mut String,
    pool: &DescriptorPool,
    message: &MessageDescriptor,
    places: &BTreeMap<String, usize>,
) -> Result<(), Box<dyn Error>> {
    let required = pool
        .get_extension_by_name("access_ledger.v1.required")
        .ok_or("the extension `required` is missing")?;
    let mut oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic());
    let oneof = oneofs.next();
    if oneofs.next().is_some() {
        return Err(format!("{} has a second oneof", message.full_name()).into());
    }
    let oneof_required = oneof
        .as_ref()
        .is_some_and(|oneof| oneof.options().get_extension(&required).as_bool() == Some(true));
    let oneof_name = oneof.as_ref().map_or("", |oneof| oneof.name()).to_owned();
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    let rules = fields.iter().map(|field| Rule::of(pool, field)).collect::<Result<Vec<_>, _>>()?;
    let required =
        rules.iter().rev().fold(0_u32, |mask, rule| (mask << 1) | u32::from(rule.required));
    writeln!(
        out,
        "    Message {{ oneof: {oneof_name:?}, oneof_required: {oneof_required}, required: {required}, together: &{:?}, places: &{:?}, fields: &[",
        together(&fields, &rules)?,
        places_by_number(&fields)?,
    )?;
    for (field, rule) in fields.iter().zip(&rules) {
        let in_oneof = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
        let repeated = field.cardinality() == Cardinality::Repeated;
        writeln!(
            out,
            "        Field {{ name: {:?}, in_oneof: {in_oneof}, required: {}, items_max: {}, kind: {} }},",
            field.name(),
            rule.required,
            if repeated { rule.items_max } else { 0 },
            kind(field, rule, places)?,
        )?;
    }
    out.push_str("    ] },\n");
    Ok(())
}

/// Pairs of places in `fields`: the first field only together with the second.
fn together(
    fields: &[FieldDescriptor],
    rules: &[Rule],
) -> Result<Vec<(usize, usize)>, Box<dyn Error>> {
    let bound = rules.iter().enumerate().filter(|(_, rule)| !rule.with.is_empty());
    bound
        .map(|(place, rule)| {
            let with = fields.iter().position(|field| field.name() == rule.with);
            Ok((place, with.ok_or_else(|| format!("no field `{}` beside it", rule.with))?))
        })
        .collect()
}

/// By field number: one more than the place in `fields`, 0 where there is none.
fn places_by_number(fields: &[FieldDescriptor]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut places = Vec::new();
    for (field, place) in fields.iter().zip(1..) {
        let number = usize::try_from(field.number())?;
        if number > NUMBER_MAX {
            return Err(format!("the number of {} is too large", field.full_name()).into());
        }
        places.resize(number, 0);
        places.push(place);
    }
    Ok(places)
}

fn kind(
    field: &FieldDescriptor,
    rule: &Rule,
    places: &BTreeMap<String, usize>,
) -> Result<String, Box<dyn Error>> {
    Ok(match field.kind() {
        Kind::String => match rule.format {
            0 => format!("Kind::Text {{ lines: false, len_max: {} }}", rule.len_max),
            1 => format!("Kind::Text {{ lines: true, len_max: {} }}", rule.len_max),
            2 => "Kind::Country".to_owned(),
            3 => "Kind::SourceName".to_owned(),
            other => return Err(format!("{}: unknown format {other}", field.full_name()).into()),
        },
        Kind::Bytes if rule.len > 0 => format!("Kind::Exactly {{ len: {} }}", rule.len),
        Kind::Bytes => format!("Kind::Bytes {{ len_max: {} }}", rule.len_max),
        Kind::Enum(values) => {
            let numbers: Vec<i32> = values.values().map(|value| value.number()).collect();
            format!("Kind::Enum {{ known: &{numbers:?} }}")
        }
        Kind::Bool => "Kind::Flag".to_owned(),
        Kind::Uint64 => "Kind::Number".to_owned(),
        Kind::Message(inner) => match inner.full_name() {
            "google.protobuf.Timestamp" => "Kind::Timestamp".to_owned(),
            "google.protobuf.Duration" => "Kind::Duration".to_owned(),
            name => {
                let place = places.get(name).ok_or("a message has no place")?;
                format!("Kind::Message {{ place: {place} }}")
            }
        },
        other => return Err(format!("{}: no rule for {other:?}", field.full_name()).into()),
    })
}

struct Rule {
    required: bool,
    len: u32,
    len_max: u32,
    items_max: u32,
    format: i32,
    with: String,
}

impl Rule {
    fn of(pool: &DescriptorPool, field: &FieldDescriptor) -> Result<Self, Box<dyn Error>> {
        let extension = pool
            .get_extension_by_name("access_ledger.v1.rule")
            .ok_or("the extension `rule` is missing")?;
        let options = field.options();
        let value = options.get_extension(&extension).into_owned();
        let rule = value.as_message().ok_or("the extension `rule` is no message")?;
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        Ok(Self {
            required: get(rule, "required")?.as_bool().unwrap_or_default(),
            len: get(rule, "len")?.as_u32().unwrap_or_default(),
            len_max: or(get(rule, "max_len")?.as_u32().unwrap_or_default(), LEN_MAX),
            items_max: or(get(rule, "max_items")?.as_u32().unwrap_or_default(), ITEMS_MAX),
            format: get(rule, "format")?.as_enum_number().unwrap_or_default(),
            with: get(rule, "with")?.as_str().unwrap_or_default().to_owned(),
        })
    }
}

fn get(rule: &DynamicMessage, name: &str) -> Result<Value, Box<dyn Error>> {
    Ok(rule.get_field_by_name(name).ok_or("a field of `Rule` is missing")?.into_owned())
}
