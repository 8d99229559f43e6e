//! Columns for people.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal::plain;

/// No column is made narrower than this.
const NARROWEST: usize = 8;
const GAP: usize = 2;

/// Rows under a head, each column as wide as its widest cell. The columns named in `numbers` are aligned to the right.
pub(super) fn columns(head: &[&str], numbers: &[&str], rows: &[Vec<String>]) -> String {
    columns_within(head, numbers, rows, None)
}

/// The same, at most `most` columns of the terminal wide: the widest cells are cut, which `…` shows.
pub(super) fn columns_within(
    head: &[&str],
    numbers: &[&str],
    rows: &[Vec<String>],
    most: Option<usize>,
) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.width()).max();
        let named = head.get(column).map_or(0, |name| name.width());
        widest.unwrap_or(0).max(named)
    };
    let mut widths: Vec<usize> = (0..head.len()).map(width).collect();
    if let Some(most) = most {
        narrow(&mut widths, most);
    }
    let mut text = String::new();
    let head_row: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&head_row).chain(rows) {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(&widths).zip(head) {
            let cell = cut(&plain(cell).replace('\n', " "), *width);
            let space = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) = match numbers.contains(name) {
                true => (space.as_str(), ""),
                false => ("", space.as_str()),
            };
            line += &format!("{before}{cell}{after}{:GAP$}", "");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Makes the widest columns narrower, all of them alike, until the line fits or nothing more can go.
fn narrow(widths: &mut [usize], most: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut limit = widths.iter().copied().max().unwrap_or(0);
    let line = |limit: usize, widths: &[usize]| -> usize {
        widths
            .iter()
            .map(|width| (*width).min(limit))
            .sum::<usize>()
            + gaps
    };
    while limit > NARROWEST && line(limit, widths) > most {
        limit -= 1;
    }
    for width in widths {
        *width = (*width).min(limit);
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut kept = String::new();
    for char in text.chars() {
        let own = char.width().unwrap_or(0);
        if own > left {
            break;
        }
        left -= own;
        kept.push(char);
    }
    kept + "…"
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

    #[test]
    fn columns_fit_the_terminal() {
        let rows = [
            vec!["short".into(), "a".repeat(40), "b".repeat(20)],
            vec!["x".into(), "漢字".repeat(20), "y\u{1b}".into()],
        ];
        for most in [30, 40, 60, 120] {
            let text = columns_within(&["NAME", "LONG", "LAST"], &[], &rows, Some(most));
            for line in text.lines() {
                assert!(line.width() <= most, "{most}: {line}");
            }
            assert_eq!(text.contains('…'), most < 120, "{text}");
            assert!(
                text.contains("short  ") && !text.contains('\u{1b}'),
                "{text}"
            );
        }
        // There is a limit to what can be cut.
        let text = columns_within(&["NAME", "LONG", "LAST"], &[], &rows, Some(3));
        assert!(text.contains("aaaaaaa…"), "{text}");
    }
}
