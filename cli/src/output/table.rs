//! Tables: columns aligned by what a terminal shows, not by bytes or characters.

use unicode_width::UnicodeWidthStr;

use super::style::Style;
use super::text::plain;

const GAP: usize = 2;

/// Rows under headings.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    is_state: bool,
}

impl Table {
    /// A table with these columns.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. The cell under STATE is coloured.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        let cell = |(index, text): (usize, &str)| Cell {
            text: if text.is_empty() { "-".to_owned() } else { plain(text).into_owned() },
            is_state: self.headings.get(index).is_some_and(|heading| *heading == "STATE"),
        };
        let row = cells.into_iter().enumerate().map(cell).collect();
        self.rows.push(row);
    }

    /// The table as text, with a line feed after each row.
    pub fn render(&self, style: Style) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let mut out = String::new();
        let headings = self.headings.iter().map(|heading| (heading.width(), style.bold(heading)));
        line(&mut out, &widths, headings);
        for row in &self.rows {
            let cells = row.iter().map(|cell| {
                let shown = if cell.is_state { style.state(&cell.text) } else { cell.text.clone() };
                (cell.text.width(), shown)
            });
            line(&mut out, &widths, cells);
        }
        out
    }
}

/// Cells with their widths: colour takes bytes, but no room.
fn line(out: &mut String, widths: &[usize], cells: impl ExactSizeIterator<Item = (usize, String)>) {
    let last = cells.len().saturating_sub(1);
    for ((index, (width, text)), column) in cells.enumerate().zip(widths) {
        out.push_str(&text);
        // No blanks at the end of a line.
        if index < last {
            out.extend(std::iter::repeat_n(' ', column.saturating_sub(width) + GAP));
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ID", "STATE", "IMAGE"]);
        table.row(["sb-1", "running", "alpine:latest"]);
        table.row(["sb-22", "creating", "汉字/größe:1"]);
        table.row(["sb-3", "error", ""]);
        table
    }

    #[test]
    fn columns_stand_below_each_other() {
        let expected = "\
ID     STATE     IMAGE
sb-1   running   alpine:latest
sb-22  creating  汉字/größe:1
sb-3   error     -
";
        assert_eq!(table().render(Style::PLAIN), expected);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&["IMAGE", "ID"]);
        table.row(["汉字汉字", "1"]);
        table.row(["é", "2"]);
        table.row(["e\u{301}", "3"]);
        assert_eq!(
            table.render(Style::PLAIN),
            "IMAGE     ID\n汉字汉字  1\né         2\ne\u{301}         3\n"
        );
    }

    #[test]
    fn colour_does_not_shift_columns() {
        let expected = "\
\x1b[1mID\x1b[0m     \x1b[1mSTATE\x1b[0m     \x1b[1mIMAGE\x1b[0m
sb-1   \x1b[32mrunning\x1b[0m   alpine:latest
sb-22  \x1b[33mcreating\x1b[0m  汉字/größe:1
sb-3   \x1b[31merror\x1b[0m     -
";
        assert_eq!(table().render(Style::coloured()), expected);
    }

    #[test]
    fn a_cell_cannot_break_its_row() {
        let mut table = Table::new(&["ID", "IMAGE"]);
        table.row(["sb-1", "a\nb\x1b[31m"]);
        assert_eq!(table.render(Style::PLAIN), "ID    IMAGE\nsb-1  a\\nb\\u{1b}[31m\n");
    }

    #[test]
    fn no_rows_are_a_heading() {
        assert_eq!(Table::new(&["ID", "STATE"]).render(Style::PLAIN), "ID  STATE\n");
    }
}
