import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { ISignal } from '@lumino/signaling';
import * as React from 'react';

import type { BrowserFiles } from '../actions/browser_files';
import type { Live } from '../environment/live';
import type { Server } from '../environment/server';

/** What all parts of a panel share. */
export interface IPanelContext {
  server: Server;
  live: Live;
  /** The file browser, where there is one. */
  files: BrowserFiles | null;
  commands: CommandRegistry;
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
