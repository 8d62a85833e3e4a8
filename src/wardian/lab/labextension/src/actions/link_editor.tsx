import * as React from 'react';

import type { ILink, IShape } from '../environment/types';
import { messageOf, usePanel } from '../panel/context';
import { direction } from '../panel/names';

/** A part of a shape as a slider. Positions are whole numbers; a value of null is a part that is not set. */
interface IPart {
  name: 'delay' | 'loss' | 'rate';
  positions: number;
  /** From what the server tells to a position, and from there to what it is told. */
  position: (shape: IShape) => number;
  told: (position: number) => string | null;
  /** What is set now, exactly. */
  words: (shape: IShape) => string | null;
}

/** Powers of ten of bits a second, from 64 kbit; above is no limit. */
const SLOWEST = Math.log10(64e3);
const STEPS_OF_RATE = 104;
const DECADE = 20;

const PARTS: IPart[] = [
  {
    name: 'delay',
    positions: 500,
    position: shape => Math.round(1000 * (shape.delay ?? 0)),
    told: position => (position ? `${position}ms` : null),
    words: shape => (shape.delay ? `${Number((1000 * shape.delay).toPrecision(4))}ms` : null)
  },
  {
    name: 'loss',
    positions: 200,
    position: shape => Math.round(1000 * (shape.loss ?? 0)),
    told: position => (position ? `${position / 10}%` : null),
    words: shape => (shape.loss ? `${Number((100 * shape.loss).toPrecision(4))}%` : null)
  },
  {
    name: 'rate',
    positions: STEPS_OF_RATE,
    position: shape => (shape.rate ? Math.round((Math.log10(shape.rate) - SLOWEST) * DECADE) : STEPS_OF_RATE),
    told: position => (position < STEPS_OF_RATE ? rateOf(10 ** (SLOWEST + position / DECADE), 2) : null),
    words: shape => (shape.rate ? rateOf(shape.rate, 4) : null)
  }
];

/** Sliders for what a link does. It changes while a slider moves, and until the next `up`. */
export function LinkEditor({ name, link }: { name: string; link: ILink }): React.ReactElement {
  const { live, server, trans } = usePanel();
  const [way, setWay] = React.useState('');
  const [trouble, setTrouble] = React.useState('');
  // only one request is under way; of what is moved meanwhile, the last is sent
  const next = React.useRef<Record<string, string | null>>({});
  const sending = React.useRef(false);
  const send = async (): Promise<void> => {
    if (sending.current) {
      return;
    }
    sending.current = true;
    try {
      while (Object.keys(next.current).length) {
        const changes = next.current;
        next.current = {};
        const body = { path: live.path, instance: live.instance, link: name, changes };
        await server.post('environment/links', way ? { ...body, way } : body);
        setTrouble('');
      }
    } catch (error) {
      setTrouble(messageOf(error));
    } finally {
      sending.current = false;
    }
  };
  const ways = Object.keys(link.ways);
  const shape = link.ways[way || ways[0]!] ?? {};
  const titles = { delay: trans.__('Delay'), loss: trans.__('Loss'), rate: trans.__('Rate') };
  const none = { delay: trans.__('none'), loss: trans.__('none'), rate: trans.__('no limit') };
  return (
    <fieldset className="wardian-Sliders" disabled={link.state !== 'ready'}>
      <legend>{trans.__('Until the next Up')}</legend>
      <select aria-label={trans.__('Direction')} value={way} onChange={event => setWay(event.target.value)}>
        <option value="">{trans.__('both directions')}</option>
        {ways.map(item => (
          <option key={item} value={item}>
            {direction(item, link.ends)}
          </option>
        ))}
      </select>
      {PARTS.map(part => (
        <Slider
          key={`${part.name}${way}`}
          part={part}
          title={titles[part.name]}
          none={none[part.name]}
          value={part.position(shape)}
          words={part.words(shape)}
          onMove={position => {
            next.current[part.name] = part.told(position);
            void send();
          }}
        />
      ))}
      {trouble ? (
        <p className="wardian-mod-warning" role="alert">
          {trouble}
        </p>
      ) : null}
    </fieldset>
  );
}

function Slider(props: {
  part: IPart;
  title: string;
  none: string;
  value: number;
  words: string | null;
  onMove: (position: number) => void;
}): React.ReactElement {
  const { part, title, none, value, onMove } = props;
  // where the user has moved it, until the server tells of the change
  const [moved, setMoved] = React.useState<number | null>(null);
  React.useEffect(() => setMoved(null), [props.words]);
  const position = Math.min(part.positions, Math.max(0, moved ?? value));
  const words = (moved === null ? props.words : part.told(moved)) ?? none;
  return (
    <label className="wardian-Slider">
      <span>{title}</span>
      <input
        type="range"
        min={0}
        max={part.positions}
        value={position}
        aria-valuetext={words}
        onChange={event => {
          const chosen = Number(event.target.value);
          setMoved(chosen);
          onMove(chosen);
        }}
      />
      <output>{words}</output>
    </label>
  );
}

function rateOf(bits: number, digits: number): string {
  const [size, unit] = bits >= 1e9 ? [1e9, 'gbit'] : bits >= 1e6 ? [1e6, 'mbit'] : [1e3, 'kbit'];
  return `${Number((bits / size).toPrecision(digits))}${unit}`;
}
