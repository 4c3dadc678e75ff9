//! What a piece of mail is made of: its octets, its addresses, its server, and time.

mod address;
mod message;
mod server;
mod time;

pub use address::{AddressError, Path, parse_address_list};
pub use message::{Facts, Part, Raw, with_date};
pub use server::{Endpoint, Port, Server, ServerError, StreamType};
pub use time::{Clock, Timestamp};
