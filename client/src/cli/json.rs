//! Events as JSON: the protobuf JSON mapping, by the schema that is compiled in.

use std::sync::LazyLock;

use access_ledger_proto::wire;
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::Value;

/// The schema of `access_ledger.v1.Event`, or why there is none.
static EVENT: LazyLock<Result<MessageDescriptor, String>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(wire::FILE_DESCRIPTOR_SET).map_err(|e| e.to_string())?;
    pool.get_message_by_name("access_ledger.v1.Event").ok_or_else(|| "no Event".to_owned())
});

/// Reads an event from one line of JSON. A field that the schema does not know is an error that
/// names it.
///
/// # Errors
///
/// With the column, and what is wrong there.
pub fn parse_event(json: &str) -> anyhow::Result<wire::Event> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(schema()?, &mut deserializer, &options);
    let message = message.map_err(|error| in_line(&error))?;
    deserializer.end().map_err(|error| in_line(&error))?;
    Ok(message.transcode_to()?)
}

/// The error with its place. The number of a text's only line the caller knows better than the
/// parser.
fn in_line(error: &serde_json::Error) -> anyhow::Error {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let problem = said.strip_suffix(&format!(" at line {line} column {column}"));
    let problem = problem.unwrap_or(&said);
    if line > 1 {
        return anyhow!("line {line}, column {column}: {problem}");
    }
    anyhow!("column {column}: {problem}")
}

/// An event's bytes as JSON. Enum values that the schema does not know are numbers; fields that it
/// does not know are left out, for JSON has no name for them.
pub(super) fn event_json(event: &Bytes) -> anyhow::Result<Value> {
    let message = DynamicMessage::decode(schema()?, event.clone()).context("malformed event")?;
    Ok(message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())?)
}

fn schema() -> anyhow::Result<MessageDescriptor> {
    EVENT.clone().map_err(|error| anyhow!("the schema that is compiled in is unusable: {error}"))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn message_json(event: &wire::Event) -> anyhow::Result<Value> {
        event_json(&event.encode_to_vec().into())
    }

    const LINE: &str = r#"{
        "eventId": "AAECAwQFBgcICQoLDA0ODw==", "occurredAt": "2026-11-22T09:00:00.500Z",
        "actor": {"id": "u-17", "kind": "PRINCIPAL_KIND_HUMAN", "officeCountry": "IE"},
        "access": {
            "action": "ACTION_READ", "outcome": "OUTCOME_ALLOWED", "records": "3",
            "data": [{"dataset": "users", "categories": ["DATA_CATEGORY_CONTACT"]}]
        }
    }"#;

    #[test]
    fn events_come_back_from_json_as_they_went() {
        let event = parse_event(LINE).unwrap();
        assert_eq!(event.actor.as_ref().map(|actor| actor.id.as_str()), Some("u-17"));
        let json = message_json(&event).unwrap();
        assert_eq!(json, serde_json::from_str::<Value>(LINE).unwrap());
        assert_eq!(parse_event(&json.to_string()).unwrap(), event);
    }

    #[test]
    fn the_names_of_the_proto_file_are_read_too() {
        let event = parse_event(r#"{"correlation_id": "c"}"#).unwrap();
        assert_eq!(event.correlation_id, "c");
    }

    #[test]
    fn unknown_fields_and_values_are_named() {
        let error = parse_event(r#"{"actor": {"nickname": "x"}}"#).unwrap_err().to_string();
        assert!(error.contains("nickname"), "{error}");
        let error =
            parse_event(r#"{"access": {"action": "ACTION_PEEK"}}"#).unwrap_err().to_string();
        assert!(error.contains("ACTION_PEEK"), "{error}");
        // The column is the JSON parser's, which counts differently with other features.
        assert!(error.ends_with(": unrecognized enum value 'ACTION_PEEK'"), "{error}");
        assert!(parse_event("{} {}").is_err());
        assert!(parse_event("[]").is_err());
    }

    #[test]
    fn unknown_enum_values_print_as_numbers() {
        let access = wire::Access { action: 99, ..Default::default() };
        let body = Some(wire::event::Body::Access(access));
        let json = message_json(&wire::Event { body, ..Default::default() }).unwrap();
        assert_eq!(json, serde_json::json!({"access": {"action": 99}}));
    }
}
