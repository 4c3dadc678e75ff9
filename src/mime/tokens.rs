//! The tokens of structured fields (RFC 5322 section 3.2).

/// The tokens of a value that is on one line, or `None` if one has no end. Its first
/// octet tells what a token is: white space, a quoted string, a comment, what stands in
/// angle or square brackets, one of `,;:`, or else an atom, or some of these.
pub(super) fn tokens(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut tokens = Vec::new();
    let mut rest = value;
    while let Some(first) = rest.first() {
        let while_it = |belongs: fn(&u8) -> bool| rest.iter().take_while(|o| belongs(o)).count();
        let length = match first {
            b' ' | b'\t' => while_it(is_white),
            b'"' | b'(' | b'<' | b'[' => bracketed(rest)?,
            b',' | b';' | b':' => 1,
            _ => while_it(|octet| !b" \t\"(<[,;:".contains(octet)),
        };
        let (token, others) = rest.split_at(length);
        tokens.push(token);
        rest = others;
    }
    Some(tokens)
}

pub(super) fn is_white(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

/// The length of the token that starts with a bracket or a quote.
fn bracketed(octets: &[u8]) -> Option<usize> {
    let open = octets[0];
    let close = match open {
        b'(' => b')',
        b'<' => b'>',
        b'[' => b']',
        _ => open,
    };
    let mut at = 1;
    let mut depth = 1;
    while depth > 0 {
        match *octets.get(at)? {
            b'\\' => at += 1,
            octet if octet == close => depth -= 1,
            b'(' if open == b'(' => depth += 1,
            b'"' if open != b'(' => at += bracketed(&octets[at..])? - 1,
            _ => {}
        }
        at += 1;
    }
    Some(at)
}

/// What a token means: a quoted string is without its quotes.
pub(super) fn meaning(token: &[u8]) -> Vec<u8> {
    match token {
        [b'"', quoted @ .., b'"'] => unescaped(quoted),
        _ => token.to_vec(),
    }
}

/// Text without the backslashes of its quoted pairs.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut is_escape = false;
    let is_text = |octet: &u8| {
        is_escape = *octet == b'\\' && !is_escape;
        !is_escape
    };
    text.iter().copied().filter(is_text).collect()
}
