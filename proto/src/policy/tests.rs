use super::*;

#[test]
fn default_policy_is_sound() {
    if let Err(error) = Policy::parse(Policy::DEFAULT) {
        panic!("{error}");
    }
}

#[test]
fn show() {
    for text in [
        "",
        "permit(principal, action, resource)",
        "permit(principal, action, resource);\nforbid(principal, action, resource) when { resource.boundary == Boundary::\"PROTECTD\" };",
        "permit(principal, action, resource);\n@id(\"A\") forbid(principal, action, resource) when { resource.boundary == Boundary::\"PROTECTD\" };",
        "permit(principal, action, resource);\n@id(\"A\") forbid(principal, action, resource) when { resource.bundary == Boundary::\"PROTECTED\" };",
        "permit(principal, action, resource);\n@id(\"A\") forbid(principal, action, resource) when { resource.dataset == 3 };",
        "permit(principal, action, resource);\n@id(\"A\") forbid(principal, action, resource) when { false };",
        "permit(principal, action == Action::\"RAD\", resource);",
        "permit(principal == ?principal, action, resource);",
        "permit(principal, action, resource);\n@id(\"a\") forbid(principal, action, resource);",
        "permit(principal, action, resource);\n@id(\"A\") forbid(principal, action, resource);\n  @id(\"A\") forbid(principal, action, resource);",
        "permit(principal, action, resource) when { if 3 };",
        "permit(principal, action, resource) when { principal.physical_country like \"\\q\" };",
        "permit(principal, action, resource) when { context.records + true > 3};",
        "permit(principal, action, resource) wen { true };",
        "permit(principal, action, resource) when { context.records * 1000000000000 > 3 };",
    ] {
        println!(
            "{text:?}\n   -> {:?}",
            Policy::parse(text).map(|_| ()).map_err(|e| e.to_string())
        );
    }
}
