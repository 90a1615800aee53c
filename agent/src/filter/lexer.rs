//! From characters to words and signs.

use std::fmt;

use super::FilterError;

/// A token and the byte where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A keyword, number, address or name; `true`: behind a backslash, so no keyword.
    Word(&'a str, bool),
    And,
    Or,
    Not,
    Open,
    Close,
    Slash,
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word(word, _) => word,
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Open => "(",
            Self::Close => ")",
            Self::Slash => "/",
        })
    }
}

/// The tokens of an expression.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn word(&mut self, escaped: bool) -> Kind<'a> {
        let rest = self.rest();
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, _) = rest.split_at(end);
        self.at += end;
        match word {
            "and" if !escaped => Kind::And,
            "or" if !escaped => Kind::Or,
            "not" if !escaped => Kind::Not,
            _ => Kind::Word(word, escaped),
        }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Result<Token<'a>, FilterError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let at = self.at;
        let rest = self.rest();
        let mut following = rest.chars();
        let first = following.next()?;
        let second = following.next();
        let (kind, len) = match (first, second) {
            ('&', Some('&')) => (Kind::And, 2),
            ('|', Some('|')) => (Kind::Or, 2),
            ('!', _) => (Kind::Not, 1),
            ('(', _) => (Kind::Open, 1),
            (')', _) => (Kind::Close, 1),
            ('/', _) => (Kind::Slash, 1),
            ('\\', Some(next)) if is_word(next) => {
                self.at += 1;
                (self.word(true), 0)
            }
            (first, _) if is_word(first) => (self.word(false), 0),
            (first, _) => {
                self.at = self.text.len();
                return Some(Err(FilterError::at(self.text, at, sign(first))));
            }
        };
        self.at += len;
        Some(Ok(Token { kind, at }))
    }
}

/// Letters and digits, and what holds numbers, addresses and names together.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_')
}

fn sign(sign: char) -> String {
    match sign {
        '[' | ']' => {
            "bytes at a place in the packet cannot be asked for; a filter knows protocols, \
                      addresses, ports and VLANs, and the TCP flags are counted in every line"
                .into()
        }
        '&' => "`&` is arithmetic, which a filter here does not have; write `and` or `&&`".into(),
        '|' => "`|` is arithmetic, which a filter here does not have; write `or` or `||`".into(),
        '=' | '<' | '>' | '+' | '*' | '^' => {
            format!(
                "`{sign}` is arithmetic, which a filter here does not have; write keywords \
                     such as `port`, `portrange` or `net`"
            )
        }
        '%' => {
            "`%` names an interface's zone, which is in no packet; write the address alone, and \
                choose the interface by --iface"
                .into()
        }
        ',' => "`,` joins nothing; write `or` between values".into(),
        _ => format!("`{}` is not in the language of filters", sign.escape_debug()),
    }
}
