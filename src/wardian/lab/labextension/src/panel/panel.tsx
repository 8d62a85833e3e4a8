import { ReactWidget } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import type { BrowserFiles } from '../actions/browser_files';
import type { Front } from '../environment/front';
import type { Live } from '../environment/live';
import type { Server } from '../environment/server';
import { Timeline } from '../timeline/timeline';
import { EnvironmentView } from './environment_view';
import { type ILate, PanelContext, useSignal } from './context';

interface IShared {
  server: Server;
  files: BrowserFiles | null;
  commands: CommandRegistry;
  late: ILate | undefined;
  trans: TranslationBundle;
}

/** The sidebar: the environment of what is in front. */
export class PanelSidebar extends ReactWidget {
  private _front: Front;
  private _shared: IShared;

  constructor(front: Front, shared: IShared) {
    super();
    this.addClass('wardian-Panel');
    this._front = front;
    this._shared = shared;
    // where the keyboard goes on once it is shown
    this.node.tabIndex = -1;
  }

  protected override onActivateRequest(): void {
    // the command palette gives the focus back to where it was as it closes
    requestAnimationFrame(() => {
      if (this.isVisible && !this.node.contains(document.activeElement)) {
        this.node.focus();
      }
    });
  }

  protected override render(): React.ReactElement {
    return <Sidebar front={this._front} {...this._shared} />;
  }
}

/** What a page shows. */
export type PageKind = 'environment' | 'journal';

/** A page of the main area with one environment, or with its journal. */
export class PanelPage extends ReactWidget {
  readonly live: Live;
  readonly kind: PageKind;
  private _shared: IShared;

  constructor(kind: PageKind, live: Live, shared: IShared) {
    super();
    this.addClass('wardian-Panel');
    this.addClass('wardian-mod-large');
    this.kind = kind;
    this.live = live;
    this._shared = shared;
  }

  override dispose(): void {
    this.live.dispose();
    super.dispose();
  }

  protected override render(): React.ReactElement {
    return (
      <PanelContext.Provider value={{ ...this._shared, live: this.live }}>
        {this.kind === 'journal' ? <Timeline /> : <EnvironmentView large />}
      </PanelContext.Provider>
    );
  }
}

function Sidebar({ front, ...shared }: IShared & { front: Front }): React.ReactElement {
  useSignal(front.changed);
  const { live } = front;
  const { trans } = shared;
  return (
    <>
      <Chooser front={front} trans={trans} />
      {live ? (
        <PanelContext.Provider key={`${live.path} ${live.instance}`} value={{ ...shared, live }}>
          <EnvironmentView large={false} />
        </PanelContext.Provider>
      ) : (
        <div className="wardian-Empty">
          {front.trouble ? <p className="wardian-mod-warning">{front.trouble}</p> : null}
          <p>{front.known ? trans.__('There is no experiment.yaml here, nor in a folder above.') : trans.__('Looking for experiments…')}</p>
        </div>
      )}
    </>
  );
}

/** Which environment is shown. */
function Chooser({ front, trans }: { front: Front; trans: TranslationBundle }): React.ReactElement | null {
  const { live } = front;
  const choices = new Map<string, { path: string; instance: string; words: string }>();
  const add = (path: string, instance: string, name: string): void => {
    const words = `${name}${instance === 'default' ? '' : ` (${instance})`} – ${path}`;
    choices.set(JSON.stringify([path, instance]), { path, instance, words });
  };
  if (live) {
    add(live.path, live.instance, live.state?.experiment?.name ?? live.path);
  }
  front.experiments.forEach(({ path, name, instances }) => new Set(['default', ...instances]).forEach(item => add(path, item, name)));
  if (!choices.size) {
    return null;
  }
  return (
    <div className="wardian-Chooser">
      <select
        aria-label={trans.__('Experiment')}
        value={live ? JSON.stringify([live.path, live.instance]) : ''}
        onFocus={() => void front.refresh()}
        onChange={event => {
          const chosen = choices.get(event.target.value);
          if (chosen) {
            front.choose(chosen.path, chosen.instance);
          }
        }}
      >
        {live ? null : <option value="">{trans.__('Choose an experiment')}</option>}
        {[...choices].map(([key, { words }]) => (
          <option key={key} value={key}>
            {words}
          </option>
        ))}
      </select>
      <button
        className="wardian-Button"
        title={trans.__('Keep showing this, whichever notebook is in front')}
        aria-pressed={front.pinned}
        disabled={!live}
        onClick={() => front.pin(!front.pinned)}
      >
        {trans.__('Pin')}
      </button>
    </div>
  );
}
