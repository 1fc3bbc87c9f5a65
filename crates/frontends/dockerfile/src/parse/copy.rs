//! `COPY` and `ADD`.

use super::ast::{Body, Copying};
use super::flags::{Flags, Takes};
use crate::lexer::split::Split;
use crate::lexer::{Line, heredoc};
use crate::source::{Problem, Word};

const COPY_FLAGS: [(&str, Takes); 6] = [
    ("chown", Takes::Value),
    ("from", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("exclude", Takes::Values),
    ("parents", Takes::Bool),
];

const ADD_FLAGS: [(&str, Takes); 7] = [
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Value),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Values),
];

pub(super) fn parse(keyword: &str, split: &Split, line: &Line) -> Result<Copying, Problem> {
    let mut words = super::list(&split.rest)?;
    if words.len() < 2 {
        let message = format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination \
             could not be determined"
        );
        let span = if words.is_empty() { split.keyword.span } else { split.rest.span };
        let problem = Problem::new(message).at(span);
        return Err(problem.hint(format!("write {keyword} source destination")));
    }
    let add = keyword == "ADD";
    let flags = Flags::read(split, if add { &ADD_FLAGS } else { &COPY_FLAGS })?;
    let destination = words.pop().unwrap_or_default();
    if heredoc::of_word(&destination.text).is_some() {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        return Err(Problem::new(message).at(destination.span));
    }
    let mut copying = Copying {
        add,
        destination,
        from: flags.filled("from"),
        chown: flags.filled("chown"),
        chmod: flags.filled("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.all("exclude"),
        checksum: flags.filled("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        ..Copying::default()
    };
    for word in words {
        match heredoc::of_word(&word.text) {
            Some(opened) => copying.bodies.push(body(&opened, line, &word)?),
            None => copying.sources.push(word),
        }
    }
    Ok(copying)
}

/// Finds the body of a word that opens a heredoc. In JSON form no body was read.
fn body(opened: &heredoc::Heredoc, line: &Line, word: &Word) -> Result<Body, Problem> {
    let Some(found) = line.heredocs.iter().rfind(|h| h.name == opened.name) else {
        let problem = Problem::new("a heredoc cannot stand in JSON form").at(word.span);
        return Err(problem.hint("write the sources without brackets"));
    };
    let content =
        if opened.chomp { heredoc::chomped(&found.content) } else { found.content.clone() };
    Ok(Body { name: opened.name.clone(), content, expand: opened.expand })
}
