//! The TOML file: from text to the text of each value, with the line it stands on.

use std::{
    io,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::ConfigError,
    settings::{Kind, SETTINGS, Setting},
    suggest::nearest,
};

/// A configuration file as it was read.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name, for messages.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// A file longer than this is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl File {
    /// Reads it.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub fn read(path: &Path) -> Result<File, ConfigError> {
        use std::io::Read as _;
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .and_then(|_| {
                if text.len() as u64 > FILE_BYTES_MAX {
                    Err(io::ErrorKind::FileTooLarge.into())
                } else {
                    Ok(())
                }
            });
        match read {
            Ok(()) => Ok(File { path: path.to_owned(), text }),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// The value of each key and the line it stands on.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], [`ConfigError::UnknownKey`] or [`ConfigError::BadValue`].
    pub(super) fn values(&self) -> Result<Vec<(&'static Setting, usize, String)>, ConfigError> {
        let table = DeTable::parse(&self.text).map_err(|error| ConfigError::Syntax {
            path: self.path.clone(),
            line: error.span().map_or(1, |span| self.line(span.start)),
            message: error.message().replace('\n', "; "),
        })?;
        let mut values = Vec::new();
        for (key, value) in table.get_ref() {
            let line = self.line(key.span().start);
            let Some(setting) = Setting::find(key.get_ref()) else {
                return Err(ConfigError::UnknownKey {
                    path: self.path.clone(),
                    line,
                    key: key.get_ref().to_string(),
                    nearest: nearest(key.get_ref(), SETTINGS.iter().map(|setting| setting.key)),
                });
            };
            let Some(text) = text_of(setting.kind, value) else {
                let value = if setting.kind == Kind::Secret {
                    "the value".to_owned()
                } else {
                    self.text.get(value.span()).unwrap_or_default().to_owned()
                };
                return Err(ConfigError::BadValue {
                    at: format!("{}:{line}: {}", self.path.display(), setting.key),
                    value,
                    expected: setting.expected(),
                });
            };
            values.push((setting, line, text));
        }
        Ok(values)
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// The value as it would be given to a flag, if its type is the right one.
fn text_of(kind: Kind, value: &Spanned<DeValue<'_>>) -> Option<String> {
    let value = value.get_ref();
    match kind {
        Kind::Number | Kind::Millis => integer(value),
        Kind::Bytes => integer(value).or_else(|| value.as_str().map(str::to_owned)),
        Kind::Switch => value.as_bool().map(|switch| switch.to_string()),
        Kind::Text | Kind::Secret | Kind::Choice(_) => value.as_str().map(str::to_owned),
        Kind::List => match value.as_array() {
            Some(parts) => {
                let parts: Option<Vec<&str>> = parts.iter().map(|part| part.get_ref().as_str()).collect();
                parts.map(|parts| parts.join(","))
            }
            None => value.as_str().map(str::to_owned),
        },
    }
}

fn integer(value: &DeValue<'_>) -> Option<String> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok().map(|number| number.to_string())
}
