//! Users and owners as `name|uid[:group|gid]`.

use ashlar_core::graph::{Owner, OwnerPart};

use crate::fields::{Parse, error};

/// Refuses what no `/etc/passwd` can hold, so that nothing has to be quoted anywhere.
pub(crate) fn check_user(place: &str, user: &str) -> Parse<()> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '+');
    let is_name = |part: &str| {
        let number = part.bytes().all(|b| b.is_ascii_digit());
        let fits_number = !number || part.parse::<u32>().is_ok();
        !part.is_empty() && !part.starts_with('-') && part.chars().all(fits) && fits_number
    };
    let (name, group) = split(user);
    if is_name(name) && group.is_none_or(is_name) {
        return Ok(());
    }
    let what = "is no user; write a name or a number, with a group after ':' if need be";
    Err(error(place, what))
}

fn split(user: &str) -> (&str, Option<&str>) {
    user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)))
}

/// Returns the owner that a well-formed user stands for. Root has its number in any image.
pub(crate) fn owner(user: &str) -> Owner {
    let part = |text: &str| match text.parse() {
        _ if text == "root" => OwnerPart::Id(0),
        Ok(id) => OwnerPart::Id(id),
        Err(_) => OwnerPart::Name(text.to_owned()),
    };
    let (name, group) = split(user);
    Owner { user: part(name), group: group.map(part) }
}

/// Says whether an owner has to be looked up in the tree.
pub(crate) fn has_name(owner: &Owner) -> bool {
    let is_name = |part: &OwnerPart| matches!(part, OwnerPart::Name(_));
    is_name(&owner.user) || owner.group.as_ref().is_some_and(is_name)
}
