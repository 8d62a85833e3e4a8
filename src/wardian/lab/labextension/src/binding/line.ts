/** A `%%on` line: where it stands in the source, and what it says. The kernel's `cells/binding.py` decides what is valid. */
export interface IOnLine {
  /** Where it begins and ends in the source, its line break left out. */
  start: number;
  end: number;
  /** The selector as it is written, `here` for home; empty where it is missing. */
  selector: string;
  /** The name of the node's kernel. */
  language: string;
}

interface IWord {
  text: string;
  start: number;
  end: number;
}

const BREAK = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;
const ON = /^%%on(?=\s|$)/;
const HOME_MAGIC = /^%(on|jobs|wait|stop|get|put|restart|concurrent|forward|output)(?=\s|$)/;
const EACH = /(?:^|(?<=\s))--each(?:=|\s+|$)/;
const WITH_VALUE = ['--lang', '--timeout'];

/** The `%%on` line of a cell's source, if it has one. */
export function onLine(source: string): IOnLine | null {
  const [start, line] = firstLine(source);
  if (!ON.test(line)) {
    return null;
  }
  const found = parse(line);
  const selector = found.selectors.map(word => word.text);
  return { start, end: start + line.length, selector: selector.join(''), language: found.language?.text || 'python' };
}

/** Whether a cell runs at home because it begins with a magic of Wardian's. */
export function isHomeMagic(source: string): boolean {
  return HOME_MAGIC.test(firstLine(source)[1]);
}

/** The source with another selector and language in its `%%on` line, or with such a line; everything else that the line says stays. */
export function withOnLine(source: string, selector: string, language: string): string {
  const found = onLine(source);
  const lang = language === 'python' || selector === 'here' ? '' : ` --lang ${language}`;
  if (found === null) {
    return `%%on ${selector}${lang}\n${source}`;
  }
  const line = source.slice(found.start, found.end);
  const { selectors, options } = parse(line);
  const drop = [...selectors, ...options.filter(option => option.name === '--lang' || selector === 'here')];
  const rest = drop
    .sort((one, other) => other.start - one.start)
    .reduce((text, part) => text.slice(0, part.start) + text.slice(part.end), line)
    .slice('%%on'.length)
    .trim();
  return source.slice(0, found.start) + `%%on ${selector}${lang}${rest && ` ${rest.replace(/\s+/g, ' ')}`}` + source.slice(found.end);
}

/** The source without its `%%on` line. */
export function withoutOnLine(source: string): string {
  const found = onLine(source);
  if (found === null) {
    return source;
  }
  const rest = source.slice(found.end).replace(/^(\r\n|[\n\r])/, '');
  return source.slice(0, found.start) + rest;
}

/** The first line that is neither blank nor a comment, and where it begins. */
function firstLine(source: string): [number, string] {
  let position = 0;
  BREAK.lastIndex = 0;
  while (position < source.length) {
    BREAK.lastIndex = position;
    const end = BREAK.exec(source);
    const line = source.slice(position, end ? end.index : undefined);
    const text = line.trim();
    if (text && !text.startsWith('#')) {
      return [position, line];
    }
    position = end ? BREAK.lastIndex : source.length;
  }
  return [position, ''];
}

/** The parts of a line, with their places in it. */
function parse(line: string): { selectors: IWord[]; language: IWord | null; options: (IWord & { name: string })[] } {
  const [words, each] = split(line, '%%on'.length);
  const selectors: IWord[] = [];
  const options: (IWord & { name: string })[] = each ? [{ ...each, name: '--each' }] : [];
  let language: IWord | null = null;
  for (let word = words.shift(); word; word = words.shift()) {
    const [name = '', ...value] = word.text.split('=');
    if (WITH_VALUE.includes(name)) {
      const given = value.length && value.join('=') ? { ...word, text: value.join('=') } : words.shift();
      options.push({ ...word, name, end: given?.end ?? word.end });
      language = name === '--lang' ? (given ?? null) : language;
    } else if (word.text === 'as' && selectors.length) {
      options.push({ ...word, name: 'as', end: words.shift()?.end ?? word.end });
    } else if (word.text.startsWith('-')) {
      options.push({ ...word, name: word.text });
    } else {
      selectors.push(word);
    }
  }
  return { selectors, language, options };
}

/** Words as a shell splits them, from a position on, and `--each` with its list, which may have spaces and quotes. */
function split(line: string, from: number): [IWord[], IWord | null] {
  const found = EACH.exec(line.slice(from));
  const each = found ? { text: '', start: from + found.index, end: endOfList(line, from + found.index + found[0].length) } : null;
  const words: IWord[] = [];
  let position = from;
  while (position < line.length) {
    if (each && position === each.start) {
      position = each.end;
    } else if (/\s/.test(line.charAt(position))) {
      position += 1;
    } else {
      const word = oneWord(line, position);
      words.push(word);
      position = word.end;
    }
  }
  return [words, each];
}

function oneWord(line: string, start: number): IWord {
  let text = '';
  let quote = '';
  let position = start;
  for (; position < line.length; position += 1) {
    const character = line.charAt(position);
    if (quote ? character === quote : character === '"' || character === "'") {
      quote = quote ? '' : character;
    } else if (character === '\\' && quote !== "'") {
      position += 1;
      text += line.charAt(position);
    } else if (!quote && /\s/.test(character)) {
      break;
    } else {
      text += character;
    }
  }
  return { text, start, end: position };
}

function endOfList(line: string, start: number): number {
  let depth = 0;
  let quote = '';
  let position = start;
  for (; position < line.length; position += 1) {
    const character = line.charAt(position);
    if (quote) {
      position += Number(character === '\\');
      quote = character === quote ? '' : quote;
    } else if (character === '"' || character === "'") {
      quote = character;
    } else if ('([{'.includes(character)) {
      depth += 1;
    } else if (')]}'.includes(character)) {
      depth -= 1;
    } else if (/\s/.test(character) && depth <= 0) {
      break;
    }
  }
  return Math.min(position, line.length);
}
