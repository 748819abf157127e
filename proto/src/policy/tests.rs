//! What is refused as a policy and where, what is denied, and that kept answers are the same.

use proptest::prelude::*;

use super::*;
use crate::{
    facts::assess::{Categories, Country},
    wire::{
        Action, Boundary, DataCategory, LocationEvidence, PrincipalKind, Purpose, RecipientKind,
        Sensitivity, TransferMode,
    },
};

const PERMIT: &str = "permit (principal, action, resource);";

/// A person reads protected data, and nothing is wrong with it.
fn question() -> Question<'static> {
    let home = Country::of("US");
    Question {
        act: Act::Access(Action::Read),
        kind: PrincipalKind::Human,
        privileged: false,
        employer: "example",
        employer_country: home,
        office_country: home,
        physical_country: home,
        location_evidence: LocationEvidence::DeviceAttested,
        roles: &[],
        dataset: "users",
        registered: true,
        boundary: Boundary::Protected,
        sensitivity: Sensitivity::Confidential,
        categories: Categories::of(&[DataCategory::Contact.into()]),
        jurisdiction: home,
        region: "us-east",
        purpose: Purpose::CustomerSupport,
        grant: GrantStanding::Valid,
        approvals: 1,
        grant_names_dataset: true,
        break_glass: false,
        legal_request_open: false,
        tool: "console",
        tool_approved: true,
        intent: IntentStanding::None,
        destination: Destination::None,
        destination_site: "",
        destination_country: Country::NONE,
        recipient: RecipientKind::Unspecified,
        records: Magnitude::of(7),
    }
}

fn rules(policy: &Policy, question: &Question<'_>) -> Vec<String> {
    policy.answer(question).rules().iter().map(|rule| rule.to_string()).collect()
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

/// A policy that permits everything but what meets a condition.
fn forbidding(condition: &str) -> String {
    format!("{PERMIT} @id(\"R\") forbid (principal, action, resource) when {{ {condition} }};")
}

#[test]
fn default_policy_has_the_rules_of_the_vocabulary() {
    let policy = policy(Policy::DEFAULT);
    let mut ids: Vec<_> = policy.set.policies().filter_map(|rule| rule.annotation("id")).collect();
    ids.sort_unstable();
    assert_eq!(
        ids,
        [
            "APPROVALS_MISSING",
            "BULK_EXPORT",
            "COPY_OUTSIDE_CUSTODY",
            "CROSS_REGION",
            "DISCLOSURE_WITHOUT_PROCESS",
            "INTENT_MISSING",
            "LOCATION_UNVERIFIED",
            "NO_GRANT",
            "PRIVILEGED_ACCESS",
            "TOOL_NOT_APPROVED",
        ]
    );
    assert_eq!(policy.set.policies().count(), ids.len() + 1);
    assert!(policy.answer(&question()).allowed());
}

#[test]
fn faults_are_told_with_their_place() {
    for (rest, line, column, problem) in [
        ("permit (principal, action, resource)", 2, 37, "unexpected end of input"),
        ("permit (principal, action, resource) wen { true };", 2, 38, "invalid policy condition"),
        (
            "\n  @id(\"A\") forbid (principal, action, resource)\nwhen { resource.bundary };",
            4,
            8,
            "attribute `bundary` on entity type `Data` not found; did you mean `boundary`?",
        ),
        (
            "permit (principal, action, resource)\nwhen { resource.boundary == Boundary::\"OPEN\" };",
            3,
            29,
            "entity `Boundary::\"OPEN\"` is of an enumerated entity type",
        ),
        (
            "permit (principal, action == Action::\"RAED\", resource);",
            2,
            30,
            "unrecognized action `Action::\"RAED\"`",
        ),
        ("permit (principal is User, action, resource);", 2, 22, "unrecognized entity type `User`"),
        ("permit (principal, action, resource) when { 3 };", 2, 45, "unexpected type"),
        ("permit (principal, action, resource) when { false };", 2, 1, "policy is impossible"),
        ("permit (principal == ?principal, action, resource);", 2, 1, "rule with a slot"),
        ("forbid (principal, action, resource);", 2, 1, "`forbid` without an `@id`"),
        ("@x(\"é\") @id(\"a\") forbid (principal, action, resource);", 2, 9, "`@id` \"a\""),
        ("@id(\"\") forbid (principal, action, resource);", 2, 1, "`@id` \"\""),
        (
            "@id(\"A\")\nforbid (principal, action, resource);
\t@id(\"A\") forbid (principal, action, resource);",
            4,
            2,
            "`@id` \"A\" stands twice",
        ),
        ("// a\u{202e}b", 2, 5, "character that is not shown"),
        ("permit (principal, action, resource);\r", 2, 38, "character that is not shown"),
    ] {
        let error = Policy::parse(&format!("{PERMIT}\n{rest}")).map(drop).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{rest}: {error}");
        assert!(error.problem.starts_with(problem), "{rest}: {error}");
        assert!(!error.problem.contains('\n'), "{rest}: {error}");
    }
}

#[test]
fn ids_have_at_most_64_bytes() {
    let with_id = |len: usize| {
        let id = "X".repeat(len);
        Policy::parse(&format!("@id(\"{id}\") forbid (principal, action, resource);"))
    };
    assert!(with_id(64).is_ok());
    assert_eq!(with_id(65).map(drop).unwrap_err().column, 1);
}

#[test]
fn texts_have_bounds() {
    let long = format!("{PERMIT}\n//{}", "x".repeat(Policy::LEN_MAX));
    let error = Policy::parse(&long).map(drop).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.problem.starts_with("24040 bytes of text"), "{error}");
    let deep = |brackets: usize| {
        forbidding(&format!("{}false{}", "(".repeat(brackets), ")".repeat(brackets)))
    };
    let error = Policy::parse(&deep(16)).map(drop).unwrap_err();
    assert_eq!(error.problem, "bracket 17 deep, at most 16");
    let chain = |terms: usize| {
        forbidding(&format!("context.break_glass{}", " || context.break_glass".repeat(terms)))
    };
    let countries = ["\"XY\""; 300].join(", ");
    let listing = forbidding(&format!("[{countries}].contains(principal.office_country)"));
    assert!(Policy::parse(&listing).is_ok());
    let error = Policy::parse(&chain(60)).map(drop).unwrap_err();
    assert_eq!(error.problem, "rule of more than 160 operators and brackets");
}

/// The most that the bounds let through, each of the ways in which a rule can be deep, on half the
/// stack that Rust gives a thread.
#[test]
fn deepest_rules_are_checked_and_answered_on_a_small_stack() {
    let repeated = |count: usize, first: &str, more: &str| first.to_owned() + &more.repeat(count);
    let conditions = [
        format!("{}context.break_glass{}", "(".repeat(15), ")".repeat(15)),
        format!("{}context.break_glass{}", "[".repeat(15), "]".repeat(15)) + " == []",
        repeated(70, "false", " || false"),
        repeated(70, "context.break_glass", " && true"),
        repeated(140, "0 > context.records", " + 1"),
        repeated(140, "0 > context.records", " * 1"),
        repeated(140, "context", ".x"),
        repeated(70, "", "if context.break_glass then false else ") + "false",
        repeated(15, "", "(if context.break_glass then false else ") + "false" + &")".repeat(15),
    ];
    for condition in conditions {
        let text = forbidding(&condition);
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let told = small.spawn(move || Policy::parse(&text).map(|it| rules(&it, &question())));
        match told.unwrap().join().unwrap() {
            Ok(rules) => assert_eq!(rules, [""; 0], "{condition}"),
            Err(error) => assert!(!error.problem.contains("operators and"), "{error}"),
        }
    }
}

#[test]
fn nothing_is_permitted_without_a_rule_that_permits() {
    for policy in [policy(""), Policy::nothing(), policy("// Nothing.\n")] {
        assert_eq!(rules(&policy, &question()), [POLICY_VIOLATED]);
    }
}

#[test]
fn objections_are_sorted_and_stand_for_themselves() {
    let text = "@id(\"Z\") forbid (principal, action, resource);
        @id(\"A-1\") forbid (principal, action, resource);
        @id(\"N\") forbid (principal, action, resource) when { context.break_glass };";
    assert_eq!(rules(&policy(text), &question()), ["A-1", "Z"]);
    assert_eq!(rules(&policy(&format!("{PERMIT}{text}")), &question()), ["A-1", "Z"]);
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies() {
    let many = Question { records: Magnitude::of(u64::MAX), ..question() };
    assert_eq!(many.records.value(), 10_i64.pow(18));
    let overflowing = forbidding("context.records * 1000 > 5");
    assert!(policy(&overflowing).answer(&question()).rules().len() == 1);
    assert_eq!(rules(&policy(&overflowing), &many), [POLICY_VIOLATED]);
    let both = format!("{overflowing} @id(\"A\") forbid (principal, action, resource);");
    assert_eq!(rules(&policy(&both), &many), ["A", POLICY_VIOLATED]);
}

/// All values of an enum.
fn all<T: TryFrom<i32>>() -> impl Iterator<Item = T> {
    (0..64).filter_map(|value| T::try_from(value).ok())
}

#[test]
fn schema_knows_the_vocabulary() {
    let policy = policy(PERMIT);
    let plain = question();
    let mut questions = Vec::new();
    let mut closed = Vec::new();
    for act in all().map(Act::Access).chain(all().map(Act::Transfer)) {
        let unspecified = matches!(
            act,
            Act::Access(Action::Unspecified) | Act::Transfer(TransferMode::Unspecified)
        );
        if unspecified { &mut closed } else { &mut questions }.push(Question { act, ..plain });
    }
    for kind in all() {
        let unspecified = kind == PrincipalKind::Unspecified;
        if unspecified { &mut closed } else { &mut questions }.push(Question { kind, ..plain });
    }
    for boundary in all() {
        let unspecified = boundary == Boundary::Unspecified;
        if unspecified { &mut closed } else { &mut questions }.push(Question { boundary, ..plain });
    }
    for category in all::<DataCategory>() {
        let categories = Categories::of(&[category.into()]);
        let unspecified = category == DataCategory::Unspecified;
        if unspecified { &mut closed } else { &mut questions }
            .push(Question { categories, ..plain });
    }
    questions.extend(all().map(|purpose| Question { purpose, ..plain }));
    questions.extend(all().map(|sensitivity| Question { sensitivity, ..plain }));
    questions.extend(all().map(|location_evidence| Question { location_evidence, ..plain }));
    questions.extend(all().map(|recipient| Question { recipient, ..plain }));
    questions.extend(GRANTS.map(|grant| Question { grant, ..plain }));
    questions.extend(INTENTS.map(|intent| Question { intent, ..plain }));
    questions.extend(DESTINATIONS.map(|destination| Question { destination, ..plain }));
    for question in questions {
        assert!(policy.answer(&question).allowed(), "{question:?}");
    }
    for question in closed {
        assert_eq!(rules(&policy, &question), [POLICY_VIOLATED], "{question:?}");
    }
}

#[test]
fn records_are_rounded_down_to_a_power_of_ten() {
    let rounded = |records| Magnitude::of(records).value();
    for (records, value) in [(0, 0), (1, 1), (9, 1), (10, 10), (9_999, 1_000), (10_000, 10_000)] {
        assert_eq!(rounded(records), value);
    }
    assert_eq!(rounded(u64::MAX), 10_i64.pow(18));
}

#[test]
fn names_tell_questions_apart_only_where_the_policy_looks_at_them() {
    let other = Question { tool: "other", dataset: "posts", ..question() };
    let blind = policy(Policy::DEFAULT);
    assert_eq!(question().key(blind.sees), other.key(blind.sees));
    // However the attribute is spelled.
    for attribute in ["context.tool", "context[\"tool\"]", "context[\"\\u{74}ool\"]"] {
        let policy = policy(&forbidding(&format!("{attribute} == \"other\"")));
        assert!(policy.sees.tool && !policy.sees.dataset);
        assert_ne!(question().key(policy.sees), other.key(policy.sees));
        let mut answers = Answers::new(policy);
        assert_eq!(answers.answer(&question()).rules(), []);
        assert_eq!(answers.answer(&other).rules(), [Arc::from("R")]);
    }
}

#[test]
fn answers_are_forgotten_when_there_are_too_many() {
    let mut answers = Answers::new(policy(&forbidding("resource.dataset == \"7\"")));
    for number in 0..=answers::KEPT_MAX {
        let dataset = number.to_string();
        let answer = answers.answer(&Question { dataset: &dataset, ..question() });
        assert_eq!(answer.allowed(), number != 7);
    }
    assert_eq!(answers.len(), 1);
}

#[test]
fn version_names_revision_and_text() {
    assert_eq!(version(3, "abc"), "3-ba7816bf");
}

const GRANTS: [GrantStanding; 3] =
    [GrantStanding::None, GrantStanding::Valid, GrantStanding::Invalid];
const INTENTS: [IntentStanding; 4] =
    [IntentStanding::None, IntentStanding::Asks, IntentStanding::Allowed, IntentStanding::Beyond];
const DESTINATIONS: [Destination; 3] =
    [Destination::None, Destination::InCustody, Destination::Outside];
/// A condition on each attribute, and how the question becomes one that meets it alone.
type Sight = (&'static str, fn(&mut Question<'static>));

const SIGHTS: [Sight; 31] = [
    ("action in Action::\"TAKE\"", |it| it.act = Act::Access(Action::Share)),
    ("action in Action::\"MOVE\"", |it| it.act = Act::Transfer(TransferMode::Chat)),
    ("principal.kind == PrincipalKind::\"BOT\"", |it| it.kind = PrincipalKind::Bot),
    ("principal.privileged", |it| it.privileged = true),
    ("principal.employer == \"vendor\"", |it| it.employer = "vendor"),
    ("principal.employer_country == \"IN\"", |it| it.employer_country = Country::of("IN")),
    ("principal.office_country == \"CN\"", |it| it.office_country = Country::of("CN")),
    ("principal.physical_country == \"ZZ\"", |it| it.physical_country = Country::NONE),
    ("principal.location_evidence == LocationEvidence::\"IDP\"", |it| {
        it.location_evidence = LocationEvidence::Idp;
    }),
    ("principal.roles.contains(\"dba\")", |it| it.roles = &ROLES[..]),
    ("resource.dataset like \"post*\"", |it| it.dataset = "posts"),
    ("!resource.registered", |it| it.registered = false),
    ("resource.boundary == Boundary::\"PUBLIC\"", |it| it.boundary = Boundary::Public),
    ("resource.sensitivity == Sensitivity::\"INTERNAL\"", |it| {
        it.sensitivity = Sensitivity::Internal;
    }),
    ("resource.categories.contains(Category::\"MINOR\")", |it| {
        it.categories = Categories::of(&[DataCategory::Minor.into(), DataCategory::Contact.into()]);
    }),
    ("resource.jurisdiction == \"ZZ\"", |it| it.jurisdiction = Country::of("ZZ")),
    ("resource.region == \"eu\"", |it| it.region = "eu"),
    ("context.purpose == Purpose::\"RESEARCH\"", |it| it.purpose = Purpose::Research),
    ("context.grant == GrantStanding::\"INVALID\"", |it| it.grant = GrantStanding::Invalid),
    ("context.approvals > 1", |it| it.approvals = u8::MAX),
    ("!context.grant_names_dataset", |it| it.grant_names_dataset = false),
    ("context.break_glass", |it| it.break_glass = true),
    ("context.legal_request_open", |it| it.legal_request_open = true),
    ("context.tool == \"\"", |it| it.tool = ""),
    ("!context.tool_approved", |it| it.tool_approved = false),
    ("context.intent == IntentStanding::\"ASKS\"", |it| it.intent = IntentStanding::Asks),
    ("context.destination == Destination::\"OUTSIDE\"", |it| {
        it.destination = Destination::Outside;
    }),
    ("context.destination_site == \"dc\"", |it| it.destination_site = "dc"),
    ("context.destination_country == \"SG\"", |it| it.destination_country = Country::of("SG")),
    ("context.recipient == Recipient::\"VENDOR\"", |it| it.recipient = RecipientKind::Vendor),
    ("context.records >= 1000", |it| it.records = Magnitude::of(4_321)),
];

static ROLES: std::sync::LazyLock<Vec<String>> =
    std::sync::LazyLock::new(|| vec!["oncall".to_owned(), "dba".to_owned()]);

/// Objects to each attribute by the number of its condition.
fn curious() -> Policy {
    let rules = SIGHTS.iter().enumerate().map(|(number, (condition, _))| {
        format!("@id(\"{number:02}\") forbid (principal, action, resource) when {{ {condition} }};")
    });
    policy(&rules.fold(PERMIT.to_owned(), |text, rule| text + "\n" + &rule))
}

fn changed(numbers: &[usize]) -> Question<'static> {
    let mut question = question();
    for &number in numbers {
        SIGHTS[number].1(&mut question);
    }
    question
}

#[test]
fn a_policy_sees_each_attribute_by_itself() {
    let mut answers = Answers::new(curious());
    assert!(answers.answer(&question()).allowed());
    for (number, (condition, _)) in SIGHTS.iter().enumerate() {
        let answer = answers.answer(&changed(&[number]));
        assert_eq!(answer.rules(), [Arc::from(format!("{number:02}"))], "{condition}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn kept_answers_are_the_policys_answers(
        changes in prop::collection::vec(prop::collection::vec(0..SIGHTS.len(), 0..4), 1..40),
    ) {
        for policy in [policy(Policy::DEFAULT), curious()] {
            let mut answers = Answers::new(policy.clone());
            for numbers in changes.iter().chain(&changes) {
                let question = changed(numbers);
                prop_assert_eq!(answers.answer(&question), policy.answer(&question));
            }
        }
    }
}
