//! Aligned tables for people.

use std::fmt;

/// Rows under a header; columns two spaces apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    side: Side,
}

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Table {
    /// A column of words.
    #[must_use]
    pub(crate) fn words(mut self, title: &str) -> Self {
        self.columns.push(Column { title: title.to_owned(), side: Side::Left });
        self
    }

    /// A column of numbers.
    #[must_use]
    pub(crate) fn numbers(mut self, title: &str) -> Self {
        self.columns.push(Column { title: title.to_owned(), side: Side::Right });
        self
    }

    /// One more row; what is missing at its end is empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |at: usize, column: &Column| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.chain([&column.title]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(at, column)| width(at, column)).collect();
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.clone()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (at, (column, width)) in self.columns.iter().zip(&widths).enumerate() {
                let cell = row.get(at).map_or("", String::as_str);
                match column.side {
                    Side::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Side::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn words_stand_left_numbers_right_and_characters_count_not_bytes() {
        let mut table = Table::default().words("city").numbers("n").words("end");
        table.row(["São Paulo".to_owned(), "7".to_owned(), "x".to_owned()]);
        table.row(["Rome".to_owned(), "12345".to_owned()]);
        let want = "city           n  end\nSão Paulo      7  x\nRome       12345\n";
        assert_eq!(table.to_string(), want);
    }
}
