import type { TranslationBundle } from '@jupyterlab/translation';

import type { IEntry, IEnvironment, State, WholeState } from '../environment/types';

const collator = new Intl.Collator('en', { numeric: true });

/** Sorts names as people count: "g2" before "g10". */
export function byName(one: string, other: string): number {
  return collator.compare(one, other);
}

/** What is there by name, in the order of the names. */
export function named<T>(items: Record<string, T>): [string, T][] {
  return Object.entries(items).sort(([one], [other]) => byName(one, other));
}

/** What a state is called. */
export function stateName(state: State | WholeState, trans: TranslationBundle): string {
  switch (state) {
    case 'absent':
      return trans.__('absent');
    case 'ready':
      return trans.__('ready');
    case 'partial':
      return trans.__('partial');
    case 'incomplete':
      return trans.__('incomplete');
    case 'stopped':
      return trans.__('stopped');
    case 'unreachable':
      return trans.__('unreachable');
  }
}

/** What the status of something in the journal is called. */
export function statusName(status: IEntry['status'], trans: TranslationBundle): string {
  switch (status) {
    case 'running':
      return trans.__('running');
    case 'ok':
      return trans.__('ok');
    case 'failed':
      return trans.__('failed');
    case 'cancelled':
      return trans.__('cancelled');
    case 'interrupted':
      return trans.__('interrupted');
  }
}

/** What the state of a node's kernel is called. */
export function kernelStateName(state: string, trans: TranslationBundle): string {
  const names: Record<string, string> = {
    starting: trans.__('starting'),
    idle: trans.__('idle'),
    busy: trans.__('busy'),
    dead: trans.__('dead')
  };
  return names[state] ?? state;
}

/** What a kind of resource is called. */
export function kindName(kind: string, trans: TranslationBundle): string {
  const names: Record<string, string> = {
    environment: trans.__('environment'),
    lease: trans.__('lease'),
    network: trans.__('network'),
    node: trans.__('node'),
    link: trans.__('link'),
    access: trans.__('access'),
    names: trans.__('names'),
    files: trans.__('files'),
    service: trans.__('service')
  };
  return names[kind] ?? kind;
}

/** Bytes as people read them. */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let number = value;
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${number < 10 && unit ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

/** Bits a second as people read them. */
export function rate(value: number): string {
  const units = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'];
  let number = value;
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number < 10 && unit ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

/** A direction of a link, from end to end. */
export function direction(way: string, ends: string[]): string {
  const [one = '', other = ''] = ends;
  return ['there', 'up'].includes(way) ? `${one} → ${other}` : `${other} → ${one}`;
}

/** What a link carries, each way that it carries something. */
export function flows(ways: Record<string, number> | undefined, ends: string[]): string[] {
  return Object.entries(ways ?? {})
    .filter(([, value]) => value > 0)
    .map(([way, value]) => `${direction(way, ends)} ${rate(value)}`);
}

/** Who sends how much to whom, the most first; only to and from these nodes, where some are given. */
export function talks(talk: IEnvironment['talk'], nodes?: readonly string[]): { from: string; to: string; value: number }[] {
  return Object.entries(talk ?? {})
    .flatMap(([from, receivers]) => Object.entries(receivers).map(([to, value]) => ({ from, to, value })))
    .filter(({ from, to }) => !nodes || nodes.includes(from) || nodes.includes(to))
    .sort((one, other) => other.value - one.value);
}

/** A span of seconds in its two largest units. */
export function span(seconds: number): string {
  const left = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60];
  if (days) {
    return `${days} d ${hours} h`;
  }
  if (hours) {
    return `${hours} h ${minutes} min`;
  }
  return minutes ? `${minutes} min` : `${left} s`;
}

/** A moment (seconds since the epoch) of the day in the user's way of writing; with the date where it is another day. */
export function moment(seconds: number): string {
  const time = new Date(seconds * 1000);
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString() : time.toLocaleString();
}
