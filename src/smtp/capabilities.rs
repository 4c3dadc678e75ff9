//! What a server offers in its reply to EHLO (RFC 5321 section 4.1.1.1).

use super::reply::Reply;

/// The service extensions offered. Keywords are matched without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// Whether 8BITMIME is announced but refused: it is used only for messages that can't
    /// do without.
    pub doubts_eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 8689.
    pub requiretls: bool,
    /// RFC 9422, MAILMAX: messages taken on one session.
    pub mail_max: Option<usize>,
    /// RFC 9422, RCPTMAX: recipients taken for one message.
    pub rcpt_max: Option<usize>,
    /// RFC 9422, RCPTDOMAINMAX: domains among the recipients of one message.
    pub rcpt_domain_max: Option<usize>,
    /// RFC 1870: the largest message taken; `None` if not offered, 0 for no limit.
    pub size: Option<u64>,
    /// RFC 4954: mechanism names in upper case, in the server's order.
    pub auth: Vec<String>,
}

/// An extension that is announced and then refused. In the order in which the dialogue
/// shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quirk {
    /// The parameter SIZE of MAIL.
    Size,
    /// The parameter BODY=8BITMIME of MAIL.
    EightBitMime,
    /// The parameters of RFC 3461.
    Dsn,
    /// Commands sent before their predecessors were answered.
    Pipelining,
    /// BDAT.
    Chunking,
}

impl Capabilities {
    /// Reads the lines after the first, which greets.
    pub fn from_ehlo(reply: &Reply) -> Self {
        let mut offered = Capabilities::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else {
                continue;
            };
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => offered.starttls = true,
                "PIPELINING" => offered.pipelining = true,
                "CHUNKING" => offered.chunking = true,
                "8BITMIME" => offered.eight_bit_mime = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "DSN" => offered.dsn = true,
                "REQUIRETLS" => offered.requiretls = true,
                "LIMITS" => words.for_each(|limit| offered.add_limit(limit)),
                "SIZE" => {
                    let limit = words.next().and_then(|limit| limit.parse().ok());
                    offered.size = Some(limit.unwrap_or(0));
                }
                "AUTH" => offered.add_mechanisms(words),
                // Before RFC 2554 some servers wrote it so, and Microsoft's still do.
                other => {
                    if let Some(first) = other.strip_prefix("AUTH=") {
                        offered.add_mechanisms(std::iter::once(first).chain(words));
                    }
                }
            }
        }
        offered
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            let name = name.to_ascii_uppercase();
            if !self.auth.contains(&name) {
                self.auth.push(name);
            }
        }
    }

    fn add_limit(&mut self, limit: &str) {
        let Some((name, number)) = limit.split_once('=') else {
            return;
        };
        // A limit of nothing at all would be nonsense.
        let number = number.parse().ok().filter(|&number| number > 0);
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail_max = number,
            "RCPTMAX" => self.rcpt_max = number,
            "RCPTDOMAINMAX" => self.rcpt_domain_max = number,
            _ => {}
        }
    }

    /// These without what the server refuses although it announces it.
    pub fn without(&self, quirk: Quirk) -> Self {
        let mut left = self.clone();
        match quirk {
            Quirk::Size => left.size = None,
            Quirk::EightBitMime => {
                left.doubts_eight_bit |= left.eight_bit_mime;
                left.eight_bit_mime = false;
            }
            Quirk::Dsn => left.dsn = false,
            Quirk::Pipelining => left.pipelining = false,
            Quirk::Chunking => left.chunking = false,
        }
        left
    }

    /// These for a message with which an extension is on trial. One refused parameter of
    /// MAIL tells little of which it is: those suspected before are left out as well.
    pub fn on_trial(&self, without: Option<Quirk>) -> Self {
        let Some(suspect) = without else {
            return self.clone();
        };
        let parameters = [Quirk::Size, Quirk::EightBitMime, Quirk::Dsn];
        let first = parameters.into_iter().filter(|&quirk| quirk < suspect);
        let first = first.filter(|_| suspect <= Quirk::Dsn);
        first.fold(self.without(suspect), |left, quirk| left.without(quirk))
    }

    /// Whether a message of `size` octets is over the declared limit.
    pub fn refuses_size(&self, size: u64) -> bool {
        self.size.is_some_and(|limit| limit > 0 && size > limit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::reply::ReplyReader;
    use super::*;

    #[test]
    fn extensions_are_read_off_the_reply() {
        let mut reader = ReplyReader::default();
        reader.feed(
            b"250-STARTTLS greets\r\n250-size 100\r\n250-PIPELINING\r\n250-AUTH PLAIN login\r\n\
              250-AUTH=LOGIN CRAM-MD5\r\n250-\r\n250 8bitmime\r\n",
        );
        let offered = Capabilities::from_ehlo(&reader.next_reply().unwrap().unwrap());
        let expected = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            size: Some(100),
            auth: vec!["PLAIN".into(), "LOGIN".into(), "CRAM-MD5".into()],
            ..Capabilities::default()
        };
        assert_eq!(offered, expected);
        assert!(offered.refuses_size(101) && !offered.refuses_size(100));
    }
}
