// MQTT topic filters (MQTT 3.1.1, section 4.7).

/** Whether a filter is well formed. */
export function isFilter(filter: string): boolean {
  const levels = filter.split('/');
  return (
    filter !== '' &&
    levels.every((level, at) => {
      if (level.includes('#')) return level === '#' && at === levels.length - 1;
      return !level.includes('+') || level === '+';
    })
  );
}

/** Whether a topic fits a filter: `+` is one level, a last `#` is any number of them. */
export function topicMatches(filter: string, topic: string): boolean {
  const wanted = filter.split('/');
  const given = topic.split('/');
  for (const [at, level] of wanted.entries()) {
    if (level === '#') return true;
    if (at >= given.length || (level !== '+' && level !== given[at])) return false;
  }
  return wanted.length === given.length;
}
