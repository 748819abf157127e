//! What it costs to ask the policy: an answer that is kept, one that is not, and a policy's text.

use std::hint::black_box;

use access_ledger_proto::{
    facts::assess::{Categories, Country},
    policy::{
        Act, Answers, Destination, GrantStanding, IntentStanding, Magnitude, Policy, Question,
    },
    wire::{
        Action, Boundary, LocationEvidence, PrincipalKind, Purpose, RecipientKind, Sensitivity,
    },
};
use criterion::{Criterion, criterion_group, criterion_main};

/// Questions that are asked in turn: as many different ones as a company's day has.
const QUESTIONS: usize = 4_096;

/// The number decides on action, purpose, country and records.
fn question(number: usize) -> Question<'static> {
    const COUNTRIES: [&str; 8] = ["US", "SG", "CN", "IE", "GB", "DE", "IN", "ZZ"];
    let digit = |place: u32, base: usize| number / 8_usize.pow(place) % base;
    let value = |place, base| i32::try_from(digit(place, base)).unwrap_or_default();
    let home = Country::of("US");
    Question {
        act: Act::Access(Action::try_from(1 + value(0, 8)).unwrap_or_default()),
        kind: PrincipalKind::Human,
        privileged: false,
        employer: "example-us",
        employer_country: home,
        office_country: home,
        physical_country: Country::of(COUNTRIES.get(digit(1, 8)).copied().unwrap_or_default()),
        location_evidence: LocationEvidence::DeviceAttested,
        roles: &[],
        dataset: "accounts.profile",
        registered: true,
        boundary: Boundary::Protected,
        sensitivity: Sensitivity::Confidential,
        categories: Categories::of(&[1, 2, 5]),
        jurisdiction: home,
        region: "us-east",
        purpose: Purpose::try_from(1 + value(2, 8)).unwrap_or_default(),
        grant: GrantStanding::Valid,
        approvals: 1,
        grant_names_dataset: true,
        break_glass: false,
        legal_request_open: false,
        tool: "support-console",
        tool_approved: true,
        intent: IntentStanding::None,
        destination: Destination::None,
        destination_site: "",
        destination_country: Country::NONE,
        recipient: RecipientKind::Unspecified,
        records: Magnitude::of(10_u64.pow(u32::try_from(digit(3, 8)).unwrap_or_default())),
    }
}

fn bench(criterion: &mut Criterion) {
    let questions: Vec<_> = (0..QUESTIONS).map(question).collect();
    // Sees no names, or the name of the dataset.
    let named = Policy::DEFAULT.to_owned()
        + "@id(\"PAYROLL\") forbid (principal, action, resource)
            when { resource.dataset like \"payroll.*\" };";
    for (names, text) in [("none", Policy::DEFAULT), ("dataset", named.as_str())] {
        let Ok(policy) = Policy::parse(text) else { continue };
        let mut answers = Answers::new(policy.clone());
        let mut next = (0..QUESTIONS).cycle();
        for question in &questions {
            black_box(answers.answer(question));
        }
        criterion.bench_function(&format!("policy/kept={QUESTIONS}/names={names}"), |bencher| {
            bencher.iter(|| {
                let question = next.next().and_then(|number| questions.get(number));
                question.map(|question| answers.answer(black_box(question)))
            });
        });
        criterion.bench_function(&format!("policy/kept=0/names={names}"), |bencher| {
            bencher.iter(|| {
                let question = next.next().and_then(|number| questions.get(number));
                question.map(|question| policy.answer(black_box(question)))
            });
        });
    }
    criterion.bench_function("policy/parse=default", |bencher| {
        bencher.iter(|| Policy::parse(black_box(Policy::DEFAULT)));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
