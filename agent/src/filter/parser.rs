//! From tokens to an expression, by recursive descent.
//!
//! The grammar, as in libpcap's grammar.y, where `and` and `or` have one precedence:
//!
//! ```text
//! expression = operand (("and" | "or") operand)*
//! operand    = "not" operand | "(" expression ")" | primitive | value
//! primitive  = protocol | "vlan" [number] | qualifiers values
//! qualifiers = [protocol] [side] [kind]
//! values     = value | "not" values | "(" values (("and" | "or") values)* ")"
//! ```

use super::{
    FilterError,
    ast::{Expression, Primitive, Side, Version},
    lexer::{Kind, Token},
    values, words,
};

/// Deepest nesting of `not` and parentheses.
const MAX_DEPTH: u32 = 64;

/// Most primitives; far more than a program has room for.
const MAX_PRIMITIVES: u32 = 256;

/// What a value is asked for by the keywords before it, or by those before the value before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Qualifiers<'a> {
    /// A protocol's keyword.
    pub(super) protocol: Option<&'a str>,
    pub(super) side: Side,
    pub(super) kind: ValueKind,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    Host,
    Net,
    Port,
    PortRange,
    Protocol,
}

/// Parses all tokens of `text`; `None` if there are none.
pub(super) fn parse(text: &str, tokens: &[Token]) -> Result<Option<Expression>, FilterError> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { text, tokens, next: 0, depth: 0, primitives: 0, vlan: false };
    let (expression, _) = parser.expression(None)?;
    match parser.peek() {
        None => Ok(Some(expression)),
        Some(token) => Err(parser.misplaced(token)),
    }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token<'a>],
    next: usize,
    depth: u32,
    primitives: u32,
    /// Whether `vlan` was there.
    vlan: bool,
}

/// An expression, and the qualifiers that the next value takes if it has none.
type Parsed<'a> = (Expression, Option<Qualifiers<'a>>);

/// Makes one expression of two.
type Joint = fn(Box<Expression>, Box<Expression>) -> Expression;

impl<'a> Parser<'a> {
    fn expression(&mut self, before: Option<Qualifiers<'a>>) -> Result<Parsed<'a>, FilterError> {
        let (mut left, mut last) = self.operand(before)?;
        while let Some(join) = self.joint() {
            let (right, qualifiers) = self.operand(last)?;
            left = join(Box::new(left), Box::new(right));
            last = qualifiers;
        }
        Ok((left, last))
    }

    /// Passes `and` or `or`.
    fn joint(&mut self) -> Option<Joint> {
        if self.pass(Kind::And) {
            Some(Expression::And)
        } else if self.pass(Kind::Or) {
            Some(Expression::Or)
        } else {
            None
        }
    }

    fn operand(&mut self, before: Option<Qualifiers<'a>>) -> Result<Parsed<'a>, FilterError> {
        if self.pass(Kind::Not) {
            let (negated, last) = self.nested(|parser| parser.operand(before))?;
            return Ok((Expression::Not(Box::new(negated)), last));
        }
        if self.pass(Kind::Open) {
            let (inner, _) = self.nested(|parser| parser.expression(before))?;
            self.close()?;
            // What was said inside does not reach beyond.
            return Ok((inner, before));
        }
        let Some(token) = self.peek() else { return Err(self.ended()) };
        match token.kind {
            Kind::Word(word, false) if words::is_keyword(word) => self.primitive(),
            Kind::Word(word, false) if words::refusal(word).is_some() => Err(self.misplaced(token)),
            Kind::Word(..) => Ok((self.value(before)?, before)),
            _ => Err(self.misplaced(token)),
        }
    }

    /// A keyword and what belongs to it.
    fn primitive(&mut self) -> Result<Parsed<'a>, FilterError> {
        let start = self.next;
        if self.keyword(&["vlan"]).is_some() {
            return Ok((self.vlan(start)?, None));
        }
        let protocol = self.keyword(&[
            "ip", "ip6", "tcp", "udp", "sctp", "icmp", "icmp6", "ah", "esp", "igmp", "igrp", "pim",
            "vrrp", "carp",
        ]);
        let side = self.side();
        let kind = self.kind();
        if side.is_none() && kind.is_none() {
            return match protocol {
                Some(protocol) => Ok((self.count(abbreviation(protocol))?, None)),
                // `mask` without a net.
                None => Err(self.unexpected()),
            };
        }
        let qualifiers = Qualifiers {
            protocol,
            side: side.unwrap_or(Side::Either),
            kind: kind.unwrap_or(ValueKind::Host),
        };
        values::check_qualifiers(&qualifiers, side.is_some())
            .map_err(|message| self.error(start, message))?;
        Ok((self.values(qualifiers)?, Some(qualifiers)))
    }

    fn side(&mut self) -> Option<Side> {
        let (side, other) = match self.keyword(&["src", "dst"])? {
            "src" => (Side::Src, "dst"),
            _ => (Side::Dst, "src"),
        };
        // `src or dst`: the joint is one only if the other side follows at once.
        let both = match self.tokens.get(self.next..self.next + 2) {
            Some([joint, then]) if then.kind == Kind::Word(other, false) => match joint.kind {
                Kind::And => Some(Side::Both),
                Kind::Or => Some(Side::Either),
                _ => None,
            },
            _ => None,
        };
        if both.is_some() {
            self.next += 2;
        }
        both.or(Some(side))
    }

    fn kind(&mut self) -> Option<ValueKind> {
        Some(match self.keyword(&["host", "net", "port", "portrange", "proto"])? {
            "host" => ValueKind::Host,
            "net" => ValueKind::Net,
            "port" => ValueKind::Port,
            "portrange" => ValueKind::PortRange,
            _ => ValueKind::Protocol,
        })
    }

    /// The values behind qualifiers: one, or several in parentheses.
    fn values(&mut self, qualifiers: Qualifiers<'a>) -> Result<Expression, FilterError> {
        if self.pass(Kind::Not) {
            let negated = self.nested(|parser| parser.values(qualifiers))?;
            return Ok(Expression::Not(Box::new(negated)));
        }
        if self.pass(Kind::Open) {
            return self.nested(|parser| {
                let mut left = parser.values(qualifiers)?;
                while let Some(join) = parser.joint() {
                    left = join(Box::new(left), Box::new(parser.values(qualifiers)?));
                }
                parser.close()?;
                Ok(left)
            });
        }
        self.value(Some(qualifiers))
    }

    /// One value.
    fn value(&mut self, qualifiers: Option<Qualifiers<'a>>) -> Result<Expression, FilterError> {
        let start = self.next;
        let Some(Token { kind: Kind::Word(word, escaped), .. }) = self.peek() else {
            return Err(self.unexpected());
        };
        let names_protocol = qualifiers.is_some_and(|q| q.kind == ValueKind::Protocol);
        if !escaped
            && !names_protocol
            && (words::is_keyword(word) || words::refusal(word).is_some())
        {
            return Err(self.unexpected());
        }
        self.next += 1;
        let suffix = self.suffix()?;
        let primitive = values::value(word, suffix, qualifiers.as_ref())
            .map_err(|message| self.error(start, message))?;
        self.count(primitive)
    }

    /// What follows an address: `/ LENGTH` or `mask MASK`.
    fn suffix(&mut self) -> Result<Option<values::Suffix<'a>>, FilterError> {
        let make = if self.pass(Kind::Slash) {
            values::Suffix::Length
        } else if self.keyword(&["mask"]).is_some() {
            values::Suffix::Mask
        } else {
            return Ok(None);
        };
        match self.peek() {
            Some(Token { kind: Kind::Word(word, _), .. }) => {
                self.next += 1;
                Ok(Some(make(word)))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn vlan(&mut self, start: usize) -> Result<Expression, FilterError> {
        let id = match self.peek() {
            Some(Token { kind: Kind::Word(word, _), .. })
                if word.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                self.next += 1;
                let id = values::vlan(word).map_err(|message| self.error(start + 1, message))?;
                Some(id)
            }
            _ => None,
        };
        if id.is_none() && self.vlan {
            return Err(self.error(
                start,
                "`vlan` without an id cannot ask for a second tag; write the tags' ids, such as \
                 `vlan 100 and vlan 200`",
            ));
        }
        self.vlan = true;
        self.count(Primitive::Vlan(id))
    }

    fn count(&mut self, primitive: Primitive) -> Result<Expression, FilterError> {
        self.primitives += 1;
        if self.primitives > MAX_PRIMITIVES {
            let message = format!(
                "there are more than {MAX_PRIMITIVES} conditions up to here, and a filter has \
                 room for few; write networks and port ranges in place of many hosts and ports"
            );
            return Err(self.error(self.next.saturating_sub(1), message));
        }
        Ok(Expression::Primitive(primitive))
    }

    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("`not` and parentheses are nested more than {MAX_DEPTH} deep");
            return Err(self.error(self.next.saturating_sub(1), message));
        }
        let result = inner(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn pass(&mut self, kind: Kind) -> bool {
        let passed = self.peek().is_some_and(|token| token.kind == kind);
        self.next += usize::from(passed);
        passed
    }

    /// Passes one of some keywords.
    fn keyword(&mut self, of: &[&str]) -> Option<&'a str> {
        match self.peek()?.kind {
            Kind::Word(word, false) if of.contains(&word) => {
                self.next += 1;
                Some(word)
            }
            _ => None,
        }
    }

    fn close(&mut self) -> Result<(), FilterError> {
        if self.pass(Kind::Close) {
            return Ok(());
        }
        match self.peek() {
            Some(token) => Err(self.misplaced(token)),
            None => Err(self.error(self.next, "a parenthesis is not closed; write `)`")),
        }
    }

    fn error(&self, token: usize, message: impl Into<String>) -> FilterError {
        let at = self.tokens.get(token).map_or(self.text.trim_end().len(), |token| token.at);
        FilterError::at(self.text, at, message)
    }

    /// A token where a value must be.
    fn unexpected(&self) -> FilterError {
        match self.peek() {
            None => self.ended(),
            Some(token) => {
                let message = match token.kind {
                    Kind::Word(word, false) if words::refusal(word).is_some() => {
                        return self.misplaced(token);
                    }
                    kind => format!(
                        "`{kind}` stands where a value must; write an address, a number or a range \
                         before it"
                    ),
                };
                self.error(self.next, message)
            }
        }
    }

    fn ended(&self) -> FilterError {
        self.error(self.tokens.len(), "the expression ends where a condition or value must follow")
    }

    /// A token where it cannot be.
    fn misplaced(&self, token: Token) -> FilterError {
        let message = match token.kind {
            Kind::Word(word, false) if let Some(why) = words::refusal(word) => {
                format!("`{word}` {why}")
            }
            Kind::Word(word, _) if word.starts_with(|c: char| c.is_ascii_digit()) => format!(
                "`{word}` follows without `and` or `or`; write one before it, or the keyword that \
                 says what it is, such as `port`"
            ),
            Kind::Word(..) | Kind::Open | Kind::Not => {
                format!("`{}` follows without `and` or `or`; write one before it", token.kind)
            }
            Kind::Close => "this parenthesis was not opened, or nothing is in it".into(),
            Kind::And | Kind::Or => {
                format!("`{}` joins two conditions, and one of them is missing", token.kind)
            }
            Kind::Slash => {
                "`/` belongs behind a network's address, such as `net 10.0.0.0/8`".into()
            }
        };
        FilterError::at(self.text, token.at, message)
    }
}

/// A protocol's keyword alone, as libpcap's `gen_proto_abbrev` takes it.
fn abbreviation(keyword: &str) -> Primitive {
    let version = match keyword {
        "ip" => return Primitive::Version(Version::V4),
        "ip6" => return Primitive::Version(Version::V6),
        "icmp" | "igmp" | "igrp" | "vrrp" | "carp" => Some(Version::V4),
        "icmp6" => Some(Version::V6),
        _ => None,
    };
    Primitive::Protocol(version, words::protocol(keyword).unwrap_or_default())
}
