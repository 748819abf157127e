//! Columns and rows, until they are a message.

use access_ledger_proto::wire;

/// A column of a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    name: &'static str,
    is_numeric: bool,
}

/// The cells of a row, one for each column; empty for what is unknown or none.
pub(super) type Row = Vec<String>;

/// A column of words, times or lists.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, is_numeric: false }
}

/// A column of decimal numbers.
pub(super) const fn number(name: &'static str) -> Column {
    Column { name, is_numeric: true }
}

/// The message that all of it makes.
pub(super) fn table(name: &str, columns: &[Column], rows: Vec<Row>) -> wire::ReportTable {
    let column = |column: &Column| wire::ReportColumn {
        name: column.name.to_owned(),
        numeric: column.is_numeric,
    };
    wire::ReportTable {
        name: name.to_owned(),
        columns: columns.iter().map(column).collect(),
        rows: rows.into_iter().map(|cells| wire::ReportRow { cells }).collect(),
    }
}

/// An enum's value by its name without the enum's own: `READ`. Empty when unspecified, the number
/// when this version does not know it.
pub(super) fn label<E: TryFrom<i32>>(
    value: i32,
    name: fn(&E) -> &'static str,
    prefix: &str,
) -> String {
    match E::try_from(value) {
        Ok(_) if value == 0 => String::new(),
        Ok(known) => {
            let name = name(&known);
            name.strip_prefix(prefix).unwrap_or(name).to_owned()
        }
        Err(_) => value.to_string(),
    }
}

/// What is there, in one cell.
pub(super) fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut listed = String::new();
    for item in items {
        if item.as_ref().is_empty() {
            continue;
        }
        if !listed.is_empty() {
            listed.push_str(", ");
        }
        listed.push_str(item.as_ref());
    }
    listed
}
