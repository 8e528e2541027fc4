//! What is shown on a terminal, and keys that are read from one.

use std::io::{self, Read as _, Write as _};

use comfy_table::Table;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc::UnboundedSender;

/// A table as lines, without the blanks that borderless tables put around every line.
pub(super) fn finish(table: &Table) -> String {
    let text = table.to_string();
    let indent = text.lines().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    text.lines().map(|line| line.get(indent..).unwrap_or_default().trim_end().to_owned() + "\n").collect()
}

/// Text from elsewhere as it may be shown: control characters could move the cursor or worse.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Single keys instead of lines, until this is dropped. Signals keep working.
pub(super) struct SingleKeys {
    before: Termios,
}

impl SingleKeys {
    /// Switches standard input.
    pub(super) fn switch_on() -> io::Result<SingleKeys> {
        let before = tcgetattr(io::stdin())?;
        let mut single = before.clone();
        single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        single.special_codes[SpecialCodeIndex::VMIN] = 1;
        single.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &single)?;
        Ok(SingleKeys { before })
    }

    /// Reads keys on a thread of its own, for as long as somebody listens.
    pub(super) fn send_to(&self, keys: UnboundedSender<u8>) {
        std::thread::spawn(move || {
            let mut key = [0];
            while matches!(io::stdin().lock().read(&mut key), Ok(1)) && keys.send(key[0]).is_ok() {}
        });
    }
}

impl Drop for SingleKeys {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// How many characters a line has. Some terminals do not know it and say zero.
fn width(columns: u16) -> usize {
    if columns == 0 { WIDTH_DEFAULT } else { usize::from(columns) }
}

const WIDTH_DEFAULT: usize = 80;

/// Redraws a few lines in place.
#[derive(Default)]
pub(super) struct Screen {
    lines: usize,
}

impl Screen {
    /// Shows `text` where the last text was.
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        let mut out = String::new();
        if self.lines > 0 {
            out += &format!("\x1b[{}A\x1b[J", self.lines);
        }
        // A line that wraps would take more room than is cleared the next time.
        let width = tcgetwinsize(io::stdout()).map_or(usize::MAX, |size| width(size.ws_col));
        for line in text.lines() {
            out.extend(line.chars().take(width));
            out.push('\n');
        }
        self.lines = text.lines().count();
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    /// The table of `demo` was once a single column of letters there.
    #[test]
    fn a_terminal_that_does_not_know_its_width_gets_whole_lines() {
        assert_eq!((super::width(0), super::width(120)), (80, 120));
    }
}
