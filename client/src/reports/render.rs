//! Reports as text: a table for people, CSV (RFC 4180) for spreadsheets, JSON for programs.
//!
//! | format | numbers | nothing | footer |
//! |---|---|---|---|
//! | table | right-aligned | blank | behind the table |
//! | CSV | as they are | empty field | aside: RFC 4180 has no place for it |
//! | JSON | numbers | `null` | member `footer` |
//!
//! **Spreadsheets run formulas.** A CSV field that is not of a numeric column and begins with `=`,
//! `+`, `-`, `@`, a tab or a carriage return gets an apostrophe in front, which spreadsheets show
//! as text. Whoever reads CSV by program takes JSON, in which nothing is changed.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use access_ledger_proto::{hash::Digest, wire};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use serde_json::Number;

use super::Day;
use crate::evidence::printable;

/// How to write a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns side by side, for people
    #[default]
    Table,
    /// RFC 4180; the footer goes to the standard error
    Csv,
    /// One object: report, columns, rows, footer
    Json,
}

/// Who computed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// This program, from entries that it verified.
    Verified,
    /// The server, whose word it is.
    ToldByServer,
}

/// Writes a report and its footer to `out`; what the format has no place for to `aside`.
///
/// # Errors
///
/// Those of writing.
pub fn render(
    table: &wire::ReportTable,
    footer: &wire::ReportFooter,
    basis: Basis,
    format: Format,
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Table => {
            if table.rows.is_empty() {
                writeln!(out, "(no rows)")?;
            } else {
                writeln!(out, "{}", columns(table))?;
            }
            writeln!(out)?;
            write_footer(footer, basis, out)
        }
        Format::Csv => {
            write_csv(table, out)?;
            write_footer(footer, basis, aside)
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &Whole { table, footer, basis })?;
            writeln!(out)
        }
    }
}

/// The table as wide as its content, so that a pipe loses nothing.
fn columns(table: &wire::ReportTable) -> String {
    let mut drawn = Table::new();
    drawn.load_style(presets::NOTHING);
    drawn.set_header(table.columns.iter().map(|column| printable(&column.name)));
    for row in &table.rows {
        drawn.add_row(row.cells.iter().map(printable));
    }
    for (drawn, column) in drawn.column_iter_mut().zip(&table.columns) {
        drawn.set_padding((0, 2));
        if column.numeric {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    drawn.trim_fmt()
}

fn write_csv(table: &wire::ReportTable, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
    csv.write_record(table.columns.iter().map(|column| &column.name))?;
    for row in &table.rows {
        let cells = row.cells.iter().zip(&table.columns);
        let guarded = cells.map(|(cell, column)| match column.numeric {
            true => Cow::Borrowed(cell.as_str()),
            false => without_formula(cell),
        });
        csv.write_record(guarded.map(|cell| cell.into_owned()))?;
    }
    csv.flush()
}

/// A cell that no spreadsheet takes for a formula.
fn without_formula(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return Cow::Owned(format!("'{cell}"));
    }
    Cow::Borrowed(cell)
}

fn write_footer(footer: &wire::ReportFooter, basis: Basis, out: &mut dyn Write) -> io::Result<()> {
    let (origin, version) = (printable(&footer.origin), printable(&footer.version));
    writeln!(out, "origin    {origin}")?;
    writeln!(out, "size      {} entries", footer.size)?;
    writeln!(out, "root      {}", hex(&footer.root))?;
    for cosigner in &footer.cosigners {
        writeln!(out, "cosigned  by {}", printable(cosigner))?;
    }
    let (from, to) = (date(footer.from.as_ref()), date(footer.to.as_ref()));
    writeln!(out, "range     from {from} to before {to}")?;
    writeln!(out, "sources   {} recorded", footer.sources)?;
    writeln!(out, "gaps      {} events declared lost", footer.declared_lost)?;
    writeln!(out, "redacted  {} events erased", footer.redacted)?;
    writeln!(out, "version   {version}")?;
    match basis {
        Basis::Verified => writeln!(out, "verified  yes, every entry"),
        Basis::ToldByServer => writeln!(out, "verified  NO, as the server tells it"),
    }
}

fn date(time: Option<&prost_types::Timestamp>) -> String {
    let seconds = time.map_or(0, |time| u64::try_from(time.seconds).unwrap_or_default());
    Day::of(seconds.saturating_mul(super::period::SECOND_NANOS)).to_string()
}

/// A digest, or whatever stands in its place.
fn hex(bytes: &[u8]) -> String {
    Digest::from_slice(bytes).map_or_else(|| format!("({} bytes)", bytes.len()), |d| d.to_string())
}

/// Table and footer as one JSON object.
struct Whole<'a> {
    table: &'a wire::ReportTable,
    footer: &'a wire::ReportFooter,
    basis: Basis,
}

struct Rows<'a>(&'a wire::ReportTable);

struct RowOf<'a>(&'a [wire::ReportColumn], &'a wire::ReportRow);

struct Footer<'a>(&'a wire::ReportFooter, Basis);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let columns: Vec<_> = self.table.columns.iter().map(|column| &column.name).collect();
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("report", &self.table.name)?;
        map.serialize_entry("columns", &columns)?;
        map.serialize_entry("rows", &Rows(self.table))?;
        map.serialize_entry("footer", &Footer(self.footer, self.basis))?;
        map.end()
    }
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.rows.len()))?;
        for row in &self.0.rows {
            rows.serialize_element(&RowOf(&self.0.columns, row))?;
        }
        rows.end()
    }
}

impl Serialize for RowOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(columns, row) = self;
        let mut cells = serializer.serialize_map(Some(columns.len()))?;
        for (column, cell) in columns.iter().zip(&row.cells) {
            // Parsed as JSON does, so that not one digit changes.
            let number = column.numeric.then(|| cell.parse::<Number>().ok()).flatten();
            match number {
                Some(number) => cells.serialize_entry(&column.name, &number)?,
                None if cell.is_empty() => cells.serialize_entry(&column.name, &None::<()>)?,
                None => cells.serialize_entry(&column.name, cell)?,
            }
        }
        cells.end()
    }
}

impl Serialize for Footer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(footer, basis) = self;
        let mut map = serializer.serialize_map(Some(11))?;
        map.serialize_entry("origin", &footer.origin)?;
        map.serialize_entry("size", &footer.size)?;
        map.serialize_entry("root", &hex(&footer.root))?;
        map.serialize_entry("cosigners", &footer.cosigners)?;
        map.serialize_entry("from", &date(footer.from.as_ref()))?;
        map.serialize_entry("to", &date(footer.to.as_ref()))?;
        map.serialize_entry("sources", &footer.sources)?;
        map.serialize_entry("declaredLost", &footer.declared_lost)?;
        map.serialize_entry("redacted", &footer.redacted)?;
        map.serialize_entry("version", &footer.version)?;
        map.serialize_entry("verified", &(*basis == Basis::Verified))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::grid::{self, number, text};

    fn table() -> wire::ReportTable {
        let columns = [text("actor"), number("accesses"), number("% approved"), text("note")];
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = vec![
            row(["u-1", "18446744073709551615", "33.3", "=1+1"]),
            row(["u-2", "7", "", "says \"no\", twice\u{1b}[2J"]),
        ];
        grid::table("privileged", &columns, rows)
    }

    fn footer() -> wire::ReportFooter {
        wire::ReportFooter {
            origin: "ledger.example".into(),
            size: 9,
            root: vec![0xab; 32].into(),
            cosigners: vec!["custodian.example".into()],
            from: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            to: Some(prost_types::Timestamp { seconds: 86_400, nanos: 0 }),
            sources: 2,
            declared_lost: 1,
            redacted: 0,
            version: "access-ledger 0.0.0".into(),
        }
    }

    fn rendered(format: Format) -> (String, String) {
        let (mut out, mut aside) = (Vec::new(), Vec::new());
        render(&table(), &footer(), Basis::Verified, format, &mut out, &mut aside).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(aside).unwrap())
    }

    fn footer_text() -> String {
        format!(
            "origin    ledger.example\nsize      9 entries\nroot      {}\n\
             cosigned  by custodian.example\nrange     from 1970-01-01 to before 1970-01-02\n\
             sources   2 recorded\ngaps      1 events declared lost\nredacted  0 events erased\n\
             version   access-ledger 0.0.0\nverified  yes, every entry\n",
            "ab".repeat(32)
        )
    }

    #[test]
    fn a_table_lines_up_and_controls_no_terminal() {
        let wanted = "\
actor              accesses  % approved  note
u-1    18446744073709551615        33.3  =1+1
u-2                       7              says \"no\", twice\\u{1b}[2J

";
        let (out, aside) = rendered(Format::Table);
        assert_eq!(out, wanted.to_owned() + &footer_text());
        assert_eq!(aside, "");
    }

    #[test]
    fn csv_is_rfc_4180_and_runs_no_formula() {
        let wanted = "actor,accesses,% approved,note\r\n\
                      u-1,18446744073709551615,33.3,'=1+1\r\n\
                      u-2,7,,\"says \"\"no\"\", twice\u{1b}[2J\"\r\n";
        let (out, aside) = rendered(Format::Csv);
        assert_eq!(out, wanted);
        assert_eq!(aside, footer_text());
    }

    #[test]
    fn json_has_numbers_nulls_and_the_order_of_columns() {
        let (out, aside) = rendered(Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["rows"][0]["accesses"], serde_json::json!(u64::MAX));
        assert_eq!(json["rows"][0]["% approved"], serde_json::json!(33.3));
        assert_eq!(json["rows"][1]["% approved"], serde_json::Value::Null);
        assert_eq!(json["rows"][0]["note"], "=1+1");
        assert_eq!(json["footer"]["root"], "ab".repeat(32));
        assert_eq!(json["footer"]["verified"], true);
        assert!(out.find("\"accesses\": 1").unwrap() < out.find("\"note\": \"=").unwrap());
        assert_eq!(aside, "");
    }

    #[test]
    fn a_report_without_rows_says_so() {
        let empty = wire::ReportTable { rows: Vec::new(), ..table() };
        let (mut out, mut aside) = (Vec::new(), Vec::new());
        let (footer, basis) = (footer(), Basis::ToldByServer);
        render(&empty, &footer, basis, Format::Table, &mut out, &mut aside).unwrap();
        let wanted = footer_text().replace("yes, every entry", "NO, as the server tells it");
        assert_eq!(String::from_utf8(out).unwrap(), format!("(no rows)\n\n{wanted}"));
    }
}
