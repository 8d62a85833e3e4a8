import { Notification } from '@jupyterlab/apputils';
import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';

import type { IEnvironment, IOpenPort } from '../environment/types';
import { type IPanelContext, messageOf } from '../panel/context';
import type { ISelection } from '../panel/selection';
import { type IField, ask } from './ask';

/** What a menu is about: something that can be selected, or the whole environment. */
export interface ITarget {
  kind: ISelection['kind'] | 'all';
  name: string;
}

/** Where a menu opens: below an element, or at a point. */
export type Place = Element | { x: number; y: number };

/** Open the menu of what can be done to something. Gives false where there is nothing. */
export function openMenu(panel: IPanelContext, state: IEnvironment, target: ITarget, place: Place): boolean {
  const entries = entriesOf(panel, state, target);
  if (!entries.length) {
    return false;
  }
  const commands = new CommandRegistry();
  const menu = new Menu({ commands });
  entries.forEach((entry, index) => {
    if (entry === null) {
      menu.addItem({ type: 'separator' });
      return;
    }
    commands.addCommand(`do-${index}`, {
      label: entry.label,
      isEnabled: () => entry.enabled ?? true,
      execute: () => entry.run().catch((error: unknown) => void Notification.error(messageOf(error), { autoClose: 8000 }))
    });
    menu.addItem({ command: `do-${index}` });
  });
  if (place instanceof Element) {
    const box = place.getBoundingClientRect();
    menu.open(box.left, box.bottom);
  } else {
    menu.open(place.x, place.y);
  }
  // so that the keyboard goes on where it was
  const before = document.activeElement as HTMLElement | null;
  menu.aboutToClose.connect(() => before?.focus());
  return true;
}

interface IEntryOfMenu {
  label: string;
  enabled?: boolean;
  run: () => Promise<unknown>;
}

function entriesOf(panel: IPanelContext, state: IEnvironment, { kind, name }: ITarget): (IEntryOfMenu | null)[] {
  const { trans } = panel;
  if (kind === 'network' || state.state === 'absent') {
    return [];
  }
  if (kind === 'link') {
    return [{ label: trans.__('Flap…'), run: () => inflict(panel, 'flap', [name], [EVERY(panel), DOWN(panel), DURATION(panel)]) }];
  }
  const faults: IEntryOfMenu[] = [
    { label: trans.__('Pause…'), run: () => inflict(panel, 'pause', [name], [DURATION(panel)]) },
    { label: trans.__('Slow Down…'), run: () => inflict(panel, 'slow', [name], [CPU(panel), DURATION(panel)]) },
    {
      label: trans.__('Cut Off from…'),
      enabled: kind !== 'all',
      run: () => inflict(panel, 'partition', [name], [SIDE(panel), DURATION(panel)])
    },
    { label: trans.__('Kill…'), run: () => inflict(panel, 'kill', [name], []) }
  ];
  if (kind !== 'node') {
    const held = Object.entries(state.faults).filter(([, fault]) => kind === 'all' || fault.targets.includes(name));
    const undo = {
      label: trans.__('Undo Faults'),
      enabled: held.length > 0,
      run: () => Promise.all(held.map(([id]) => undone(panel, id)))
    };
    return [...faults, null, undo];
  }
  const ready = state.nodes[name]?.state === 'ready';
  return [
    { label: trans.__('Terminal'), enabled: ready, run: () => openTerminal(panel, name) },
    { label: trans.__('Open a Port…'), enabled: ready, run: () => openPort(panel, name) },
    null,
    ...faults
  ];
}

/** Undo a fault. */
export function undone({ server, live }: IPanelContext, id: string): Promise<unknown> {
  return server.request('DELETE', 'environment/faults', { path: live.path, instance: live.instance, id });
}

/** Open a terminal on a node, in a tab. */
export async function openTerminal({ server, live, commands }: IPanelContext, node: string): Promise<void> {
  const { name } = await server.post<{ name: string }>('environment/terminals', { path: live.path, instance: live.instance, node });
  await commands.execute('terminal:open', { name });
}

/** Ask for a port of a node, and open it. */
export async function openPort({ server, live, trans }: IPanelContext, node: string): Promise<void> {
  const answers = await ask(trans.__('Open a port of %1', node), trans.__('Open'), trans, [
    { name: 'port', label: trans.__('Port on the node'), value: '80', kind: 'number' }
  ]);
  if (answers) {
    const body = { path: live.path, instance: live.instance, node, port: Number(answers['port']) };
    const opened = await server.post<IOpenPort>('environment/ports', body);
    Notification.success(trans.__('Port %1 of %2 is open at %3', opened.port, node, opened.url), {
      autoClose: 10_000,
      actions: [{ label: trans.__('Show'), callback: () => void window.open(opened.url, '_blank', 'noopener') }]
    });
  }
}

async function inflict({ server, live, trans }: IPanelContext, kind: string, targets: string[], fields: IField[]): Promise<void> {
  const names: Record<string, string> = {
    pause: trans.__('Pause %1', targets[0]!),
    slow: trans.__('Slow down %1', targets[0]!),
    partition: trans.__('Cut off %1', targets[0]!),
    kill: trans.__('Kill %1? Its processes end at once.', targets[0]!),
    flap: trans.__('Flap %1', targets[0]!)
  };
  const answers = await ask(names[kind]!, trans.__('Inflict'), trans, fields);
  if (answers) {
    const { side, ...values } = Object.fromEntries(Object.entries(answers).filter(([, value]) => value !== ''));
    const all = side ? [...targets, side] : targets;
    await server.post('environment/faults', { path: live.path, instance: live.instance, kind, targets: all, ...values });
  }
}

const DURATION = ({ trans }: IPanelContext): IField => ({
  name: 'for',
  label: trans.__('For how long (empty: until it is undone)'),
  value: '30s'
});
const CPU = ({ trans }: IPanelContext): IField => ({ name: 'cpu', label: trans.__('What it keeps of its processors'), value: '20%' });
const SIDE = ({ trans }: IPanelContext): IField => ({
  name: 'side',
  label: trans.__('From which nodes (a selector; empty: all others)'),
  value: ''
});
const EVERY = ({ trans }: IPanelContext): IField => ({ name: 'every', label: trans.__('From one loss to the next'), value: '5s' });
const DOWN = ({ trans }: IPanelContext): IField => ({ name: 'down', label: trans.__('How long each'), value: '1s' });
