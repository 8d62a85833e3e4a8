import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { ISignal } from '@lumino/signaling';
import * as React from 'react';

import type { BrowserFiles } from '../actions/browser_files';
import type { Live } from '../environment/live';
import type { Server } from '../environment/server';
import type { ILateCell } from '../switch/late';

/** Cells that would not end before the lease of an experiment's environment does. */
export interface ILate {
  readonly changed: ISignal<unknown, void>;
  of(path: string): (ILateCell & { notebook: string })[];
}

/** What all parts of a panel share. */
export interface IPanelContext {
  server: Server;
  live: Live;
  /** The file browser, where there is one. */
  files: BrowserFiles | null;
  commands: CommandRegistry;
  /** Cells of open notebooks that would not end before the lease does, where something knows of them. */
  late?: ILate | undefined;
  trans: TranslationBundle;
}

export const PanelContext = React.createContext<IPanelContext | null>(null);

export function usePanel(): IPanelContext {
  return React.useContext(PanelContext)!;
}

/** Render again at each signal. */
export function useSignal<T, U>(signal: ISignal<T, U>): void {
  const [, tick] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => {
    const slot = (): void => tick();
    signal.connect(slot);
    // it may have come between rendering and now
    tick();
    return () => {
      signal.disconnect(slot);
    };
  }, [signal]);
}

/** Have what links carry told while an element can be seen: in view, in a tab that is shown. Gives its `ref`. */
export function useTraffic(live: Live): React.RefCallback<Element> {
  const [element, place] = React.useState<Element | null>(null);
  const [inView, setInView] = React.useState(false);
  const [hidden, setHidden] = React.useState(document.hidden);
  const seen = inView && !hidden;
  React.useEffect(() => {
    const onHidden = (): void => setHidden(document.hidden);
    document.addEventListener('visibilitychange', onHidden);
    return () => document.removeEventListener('visibilitychange', onHidden);
  }, []);
  React.useEffect(() => {
    const observer = new IntersectionObserver(entries => setInView(entries.at(-1)!.isIntersecting));
    if (element) {
      observer.observe(element);
    }
    return () => observer.disconnect();
  }, [element]);
  React.useEffect(() => {
    if (!seen) {
      return undefined;
    }
    live.watchTraffic(true);
    return () => live.watchTraffic(false);
  }, [live, seen]);
  return place;
}

/** What a request answers; asked again when `key` changes, with the last answer kept while it runs. */
export function useAnswer<T>(ask: () => Promise<T>, key: string): { answer: T | null; trouble: string } {
  const [state, setState] = React.useState<{ answer: T | null; trouble: string }>({ answer: null, trouble: '' });
  React.useEffect(() => {
    let left = false;
    ask().then(
      answer => !left && setState({ answer, trouble: '' }),
      (error: unknown) => !left && setState(({ answer }) => ({ answer, trouble: messageOf(error) }))
    );
    return () => {
      left = true;
    };
  }, [key]);
  return state;
}

/** What went wrong, and what to do about it where the server knows. */
export function messageOf(error: unknown): string {
  const { message, remedy } = error as { message?: string; remedy?: string };
  return [message ?? String(error), remedy].filter(Boolean).join(' – ');
}
