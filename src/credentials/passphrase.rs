//! How a passphrase is asked for.

use zeroize::Zeroizing;

/// Asks for a passphrase: it is called with what that is for, a key's id and owner or a
/// file's name. Its error says why there is none, and is shown to the user.
pub type Ask<'a> = &'a mut (dyn FnMut(&str) -> Result<Zeroizing<String>, String> + Send);
