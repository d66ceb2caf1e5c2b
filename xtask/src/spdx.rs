//! Licence expressions as crates write them, and whether a list of licences satisfies one.
//!
//! The grammar is the part of SPDX that occurs in practice: identifiers, `WITH` an exception, `AND`,
//! `OR`, parentheses, and the old `A/B` for `A OR B`. Anything else is refused, not guessed.

use std::collections::BTreeSet;

/// Whether `expression` can be met by licences of `allowed` alone. `Err` says what is malformed.
pub(crate) fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let tokens = tokens(expression);
    let mut parser = Parser {
        rest: &tokens,
        allowed,
    };
    let met = parser.any()?;
    match parser.rest.first() {
        None => Ok(met),
        Some(extra) => Err(format!("unexpected `{extra}`")),
    }
}

fn tokens(expression: &str) -> Vec<String> {
    expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

struct Parser<'a> {
    rest: &'a [String],
    allowed: &'a BTreeSet<String>,
}

impl<'a> Parser<'a> {
    /// `AND` binds tighter than `OR`. Both sides are always parsed, so that an error on the right is
    /// seen even where the left already decides.
    fn any(&mut self) -> Result<bool, String> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Ok(met)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let met = self.any()?;
            return if self.take(")") {
                Ok(met)
            } else {
                Err("a parenthesis is not closed".into())
            };
        }
        let licence = self.identifier()?;
        if self.take("WITH") {
            let exception = self.identifier()?;
            return Ok(self
                .allowed
                .contains(&format!("{licence} WITH {exception}")));
        }
        Ok(self.allowed.contains(licence))
    }

    fn identifier(&mut self) -> Result<&'a str, String> {
        match self.rest.split_first() {
            Some((token, rest)) if !matches!(token.as_str(), "AND" | "OR" | "WITH" | "(" | ")") => {
                self.rest = rest;
                Ok(token)
            }
            Some((token, _)) => Err(format!("expected a licence before `{token}`")),
            None => Err("expected a licence at the end".into()),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if first == token => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mit_and_isc(expression: &str) -> Result<bool, String> {
        satisfied(expression, &["MIT".to_owned(), "ISC".to_owned()].into())
    }

    #[test]
    fn expressions_are_decided_as_spdx_defines_them() {
        for (expression, met) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 / MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("MIT AND ISC", true),
            ("GPL-3.0 AND MIT OR ISC", true),
            ("GPL-3.0 AND (MIT OR ISC)", false),
            ("(GPL-3.0 OR ISC) AND MIT", true),
            ("MIT WITH Some-exception", false),
        ] {
            assert_eq!(with_mit_and_isc(expression), Ok(met), "{expression}");
        }
    }

    #[test]
    fn a_malformed_expression_is_never_satisfied() {
        for expression in [
            "", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT ISC", "MIT WITH",
        ] {
            assert!(with_mit_and_isc(expression).is_err(), "`{expression}`");
        }
    }
}
