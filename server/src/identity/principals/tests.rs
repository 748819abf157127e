//! What a file of principals says, and what it may not say.

use access_ledger_proto::hash::sha256;

use super::*;
use crate::identity::limits::{Holds, Places};

const FILE: &str = r#"
[[principal]]
name = "payments"
roles = ["record", "authorize"]
sources = ["payments", "billing/*"]
uris = ["spiffe://corp.example/payments"]
dns = ["Pay.corp.example"]

[[principal]]
name = "auditor"
roles = ["audit"]
tokens = ["sha256:DIGEST"]
"#;

fn file() -> String {
    FILE.replace("DIGEST", &sha256(b"secret").to_string())
}

fn parse(text: &str) -> Result<Principals, Malformed> {
    Principals::parse(text, &Principals::default())
}

fn names(found: &[&Arc<Principal>]) -> Vec<String> {
    found.iter().map(|principal| principal.name.clone()).collect()
}

#[test]
fn credentials_lead_to_their_principal_alone() {
    let principals = parse(&file()).unwrap();
    let uri = CertificateName::Uri("spiffe://corp.example/payments".to_owned());
    let dns = CertificateName::dns("pAY.CORP.example");
    assert_eq!(names(&principals.of_names(&[uri.clone(), dns])), ["payments"]);
    let other = CertificateName::Uri("spiffe://corp.example/Payments".to_owned());
    assert!(principals.of_names(&[other]).is_empty());
    // A host named like a URI is no such URI.
    let confused = CertificateName::Dns("spiffe://corp.example/payments".to_owned());
    assert!(principals.of_names(&[confused]).is_empty());
    assert_eq!(principals.of_token(&sha256(b"secret")).unwrap().name, "auditor");
    for wrong in ["Secret", "secret ", "", "secretsecret", &sha256(b"secret").to_string()] {
        assert!(principals.of_token(&sha256(wrong.as_bytes())).is_none(), "{wrong:?}");
    }
    let payments = principals.of_names(&[uri])[0];
    assert!(payments.has(Role::Record) && payments.has(Role::Authorize));
    assert!(!payments.has(Role::Audit) && !payments.has(Role::Operate));
}

#[test]
fn bounds_cover_a_name_or_what_lies_below_it() {
    let covers = |bound: &str, name: &str| {
        Bound::parse(bound).unwrap().covers(Name::parse(name.as_bytes()).unwrap())
    };
    assert!(covers("payments", "payments"));
    assert!(!covers("payments", "payments/a"));
    assert!(covers("payments/*", "payments/a"));
    assert!(covers("payments/*", "payments/a/b"));
    for other in ["payments", "payments-a", "payment/s", "payments/"] {
        assert!(!covers("payments/*", other), "{other}");
    }
    for bad in ["", "*", "/*", "Payments", "a b", "pay*", "a/*/b"] {
        // A lone slash is a name, if an odd one; a star never is.
        assert!(Bound::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn malformed_files_are_refused_with_the_line() {
    let good = file();
    for (from, to, line, problem) in [
        ("dns = ", "dsn = ", 7, "unknown field `dsn`"),
        (
            "[[principal]]\nname = \"a",
            "[[principals]]\nname = \"a",
            9,
            "unknown field `principals`",
        ),
        ("\"authorize\"", "\"govern\"", 4, "unknown variant `govern`"),
        ("name = \"auditor\"", "name = \"payments\"", 9, "a second principal \"payments\""),
        ("name = \"auditor\"", "name = \"\"", 9, "name \"\""),
        ("roles = [\"audit\"]", "roles = []", 9, "without roles"),
        ("roles = [\"audit\"]", "roles = [\"audit\"]\nsources = []", 9, "may not record"),
        ("\"billing/*\"", "\"bill*\"", 2, "source \"bill*\""),
        ("spiffe://", "spiffe:", 2, "uri \"spiffe:corp"),
        ("Pay.corp", "*.corp", 2, "dns \"*.corp"),
        ("sha256:", "sha1:", 9, "token \"sha1:"),
        ("tokens", "dns = [\"pay.CORP.example\"]\ntokens", 9, "belongs to \"payments\""),
        ("dns = [\"Pay.corp.example\"]", "dns = 3", 7, "invalid type"),
        ("dns = [\"Pay.corp.example\"]", "limits = { calls = 0 }", 7, "nonzero"),
        ("dns = [\"Pay.corp.example\"]", "limits = { call = 1 }", 7, "unknown field `call`"),
    ] {
        assert!(good.contains(from), "{from}");
        let malformed = parse(&good.replace(from, to)).unwrap_err();
        assert_eq!(malformed.line, line, "{to}: {}", malformed.problem);
        assert!(malformed.problem.contains(problem), "{to}: {}", malformed.problem);
    }
    let token = format!("tokens = [\"sha256:{}\"]", sha256(b"secret"));
    let twice = good.replace("dns = [", &format!("{token}\ndns = ["));
    assert!(parse(&twice).unwrap_err().problem.contains("as well"));
    let nothing = good.replace(&token, "");
    assert!(parse(&nothing).unwrap_err().problem.contains("without uris"));
    assert_eq!(parse("principal = [").unwrap_err().line, 1);
}

#[test]
fn nobody_is_bound_where_nobody_is_asked() {
    let anybody = Principal::anybody();
    assert!(Role::ALL.into_iter().all(|role| anybody.has(role)));
    assert!(matches!(anybody.sources, Sources::Any));
}

#[test]
fn limits_outlive_a_change_of_the_file_unless_they_change() {
    let limited = |calls: u32, roles: &str| {
        let digest = sha256(b"other");
        format!(
            "[[principal]]\nname = \"a\"\nroles = [{roles}]\ntokens = [\"sha256:{digest}\"]\n\
             limits = {{ calls = {calls} }}\n"
        )
    };
    let all = Places::of_all();
    let enters = |principals: &Principals| {
        let principal = principals.of_token(&sha256(b"other")).unwrap();
        principal.limits.enter("a", Holds::Little, &all)
    };
    let first = parse(&limited(1, "\"audit\"")).unwrap();
    let _under_way = enters(&first).unwrap();
    // Other roles, and another principal beside it: what is used up stays so.
    let text = limited(1, "\"record\"") + &file();
    let second = Principals::parse(&text, &first).unwrap();
    assert!(enters(&second).is_err());
    let third = Principals::parse(&limited(2, "\"record\""), &second).unwrap();
    assert!(enters(&third).is_ok());
}

#[test]
fn tokens_are_not_without_number() {
    let token = |number: usize| format!("\"sha256:{}\"", sha256(format!("{number}").as_bytes()));
    let file = |count: usize| {
        let tokens: Vec<_> = (0..count).map(token).collect();
        let tokens = tokens.join(",");
        format!("[[principal]]\nname = \"a\"\nroles = [\"audit\"]\ntokens = [{tokens}]\n")
    };
    parse(&file(TOKENS_MAX)).unwrap();
    assert!(parse(&file(TOKENS_MAX + 1)).unwrap_err().problem.contains("more than 4096 tokens"));
}
