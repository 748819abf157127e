//! A question in Cedar's terms.

use std::{collections::BTreeMap, str::FromStr as _, sync::LazyLock};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
    Schema,
};

use super::{Act, Policy, Question};
use crate::facts::assess::Country;

/// The schema, read once.
pub(super) fn schema() -> &'static Schema {
    &SCHEMA
}

/// The request and the entities that it speaks of, checked against the schema.
///
/// `None` when the question holds a value that the schema does not know.
pub(super) fn of(question: &Question<'_>) -> Option<(Request, Entities)> {
    let principal = uid("Principal", "asked")?;
    let data = uid("Data", "asked")?;
    let action = uid("Action", &action(question.act))?;
    let context = Context::from_pairs(circumstances(question)?).ok()?;
    let entities =
        [entity(principal.clone(), who(question)?)?, entity(data.clone(), which(question)?)?];
    let entities = Entities::from_entities(entities, Some(schema())).ok()?;
    let request = Request::new(principal, action, data, context, Some(schema())).ok()?;
    Some((request, entities))
}

type Attribute = (String, RestrictedExpression);

fn who(question: &Question<'_>) -> Option<Vec<Attribute>> {
    let roles = question.roles.iter().map(|role| RestrictedExpression::new_string(role.clone()));
    Some(vec![
        word("kind", "PrincipalKind", question.kind.as_str_name(), "PRINCIPAL_KIND_")?,
        flag("privileged", question.privileged),
        text("employer", question.employer),
        country("employer_country", question.employer_country),
        country("office_country", question.office_country),
        country("physical_country", question.physical_country),
        word(
            "location_evidence",
            "LocationEvidence",
            question.location_evidence.as_str_name(),
            "LOCATION_EVIDENCE_",
        )?,
        ("roles".to_owned(), RestrictedExpression::new_set(roles)),
    ])
}

fn which(question: &Question<'_>) -> Option<Vec<Attribute>> {
    let categories = question.categories.iter().map(|category| {
        let name = category.as_str_name().strip_prefix("DATA_CATEGORY_")?;
        Some(RestrictedExpression::new_entity_uid(uid("Category", name)?))
    });
    let categories: Option<Vec<_>> = categories.collect();
    Some(vec![
        text("dataset", question.dataset),
        flag("registered", question.registered),
        word("boundary", "Boundary", question.boundary.as_str_name(), "BOUNDARY_")?,
        word("sensitivity", "Sensitivity", question.sensitivity.as_str_name(), "SENSITIVITY_")?,
        ("categories".to_owned(), RestrictedExpression::new_set(categories?)),
        country("jurisdiction", question.jurisdiction),
        text("region", question.region),
    ])
}

fn circumstances(question: &Question<'_>) -> Option<Vec<Attribute>> {
    Some(vec![
        word("purpose", "Purpose", question.purpose.as_str_name(), "PURPOSE_")?,
        word("grant", "GrantStanding", question.grant.name(), "")?,
        number("approvals", question.approvals.into()),
        flag("grant_names_dataset", question.grant_names_dataset),
        flag("break_glass", question.break_glass),
        flag("legal_request_open", question.legal_request_open),
        text("tool", question.tool),
        flag("tool_approved", question.tool_approved),
        word("intent", "IntentStanding", question.intent.name(), "")?,
        word("destination", "Destination", question.destination.name(), "")?,
        text("destination_site", question.destination_site),
        country("destination_country", question.destination_country),
        word("recipient", "Recipient", question.recipient.as_str_name(), "RECIPIENT_KIND_")?,
        number("records", question.records.value()),
    ])
}

/// The id of an action: that of an access as in the vocabulary, that of a transfer with its mode.
fn action(act: Act) -> String {
    match act {
        Act::Access(action) => action.as_str_name().replacen("ACTION_", "", 1),
        Act::Transfer(mode) => mode.as_str_name().replacen("_MODE_", "_", 1),
    }
}

/// `Entity::new` asks for the one map of Cedar's interface.
fn entity(uid: EntityUid, attributes: Vec<Attribute>) -> Option<Entity> {
    Entity::new(uid, attributes.into_iter().collect(), [].into()).ok()
}

fn word(attribute: &str, kind: &str, value: &str, prefix: &str) -> Option<Attribute> {
    let value = uid(kind, value.strip_prefix(prefix)?)?;
    Some((attribute.to_owned(), RestrictedExpression::new_entity_uid(value)))
}

fn text(attribute: &str, value: &str) -> Attribute {
    (attribute.to_owned(), RestrictedExpression::new_string(value.to_owned()))
}

fn country(attribute: &str, value: Country) -> Attribute {
    let value = value.as_str();
    text(attribute, if value.is_empty() { "ZZ" } else { value })
}

fn flag(attribute: &str, value: bool) -> Attribute {
    (attribute.to_owned(), RestrictedExpression::new_bool(value))
}

fn number(attribute: &str, value: i64) -> Attribute {
    (attribute.to_owned(), RestrictedExpression::new_long(value))
}

fn uid(kind: &str, id: &str) -> Option<EntityUid> {
    let kind = KINDS.get(kind)?.clone();
    Some(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

#[expect(clippy::expect_used, reason = "the schema is part of the program, and a test reads it")]
static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::from_str(Policy::SCHEMA).expect("the schema is sound"));

/// The kinds of entities by their names, which Cedar would parse each time.
static KINDS: LazyLock<BTreeMap<String, EntityTypeName>> = LazyLock::new(|| {
    let actions = EntityTypeName::from_str("Action").ok();
    let kinds = schema().entity_types().cloned().chain(actions);
    kinds.map(|kind| (kind.to_string(), kind)).collect()
});
