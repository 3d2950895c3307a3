// A judgement while it is being written: its tagged parts so far.

// Parts in order: {tag, text, isOpen}. Text outside of tags has the tag "". A piece
// at the very end that may become a tag is held back until it is one or is not.
export function sections(text) {
  const parts = [];
  let open = null;
  let rest = text.replace(/<\/?[\w-]*$/, "");
  const add = (tag, chunk, isOpen) => {
    const trimmed = chunk.trim();
    if (trimmed !== "" || isOpen) parts.push({ tag, text: trimmed, isOpen });
  };
  for (;;) {
    const match = open === null
      ? /<([\w-]+)>/.exec(rest)
      : new RegExp(`</${open}>`).exec(rest);
    if (match === null) break;
    add(open ?? "", rest.slice(0, match.index), false);
    rest = rest.slice(match.index + match[0].length);
    open = open === null ? match[1] : null;
  }
  add(open ?? "", rest, open !== null);
  return parts;
}
