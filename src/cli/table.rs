//! Columns for people.

/// Rows under a head, each column as wide as its widest cell. The columns named in `numbers` are aligned to the right.
pub(super) fn columns(head: &[&str], numbers: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        let named = head.get(column).map_or(0, |name| name.chars().count());
        widest.unwrap_or(0).max(named)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head_row: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&head_row).chain(rows) {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(&widths).zip(head) {
            match numbers.contains(name) {
                true => line += &format!("{cell:>width$}  "),
                false => line += &format!("{cell:<width$}  "),
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            vec!["é".into(), "7".into()],
            vec!["abcdef".into(), "10".into()],
        ];
        let text = columns(&["NAME", "N"], &["N"], &rows);
        assert_eq!(text, "NAME     N\né        7\nabcdef  10\n");
    }
}
