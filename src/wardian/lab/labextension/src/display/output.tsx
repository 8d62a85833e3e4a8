import type { IRenderMime, IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { ReactWidget } from '@jupyterlab/ui-components';
import { Panel } from '@lumino/widgets';
import * as React from 'react';

import { Live } from '../environment/live';
import { type IPanelContext, PanelContext, useSignal, usePanel, useTraffic } from '../panel/context';
import { LeaseLine } from '../panel/lists';
import { NodeTree } from '../panel/node_tree';
import type { ISelection } from '../panel/selection';
import { StateMark } from '../panel/state_mark';
import { Topology } from '../topology/drawing';

export const MIME_TYPE = 'application/vnd.wardian.environment+json';

/** What a cell says of an environment. experiment: its file, from the notebook's folder. */
interface IShown {
  experiment: string;
  instance: string;
}

/** An environment in a cell's output: as it is now where the server knows it, else as it was. */
export class EnvironmentOutput extends Panel implements IRenderMime.IRenderer {
  private _options: IRenderMime.IRendererOptions;
  private _registry: IRenderMimeRegistry;
  private _shared: Omit<IPanelContext, 'live'>;
  private _place: (path: string) => string;
  private _live: Live | null = null;

  /** place: the path, on the server, of one in a drive. */
  constructor(
    options: IRenderMime.IRendererOptions,
    registry: IRenderMimeRegistry,
    shared: Omit<IPanelContext, 'live'>,
    place: (path: string) => string
  ) {
    super();
    this._options = options;
    this._registry = registry;
    this._shared = shared;
    this._place = place;
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this._forget();
    this.widgets.slice().forEach(widget => widget.dispose());
    const before = this._registry.getFactory('text/html')!.createRenderer({ ...this._options, mimeType: 'text/html' });
    this.addWidget(before);
    await before.renderModel(model);
    const { experiment, instance } = model.data[MIME_TYPE] as unknown as IShown;
    const path = await this._options.resolver?.resolveUrl(encodeURI(experiment));
    if (path === undefined || this.isDisposed) {
      return;
    }
    const live = new Live(this._shared.server, this._place(decodeURI(path)), instance);
    this._live = live;
    const begin = (): void => {
      if (live.state) {
        live.changed.disconnect(begin);
        before.dispose();
        this.addWidget(
          ReactWidget.create(
            <PanelContext.Provider value={{ ...this._shared, live }}>
              <Small />
            </PanelContext.Provider>
          )
        );
      } else if (live.connection === 'lost') {
        // the experiment is elsewhere, or the server has no such interface
        this._forget();
      }
    };
    live.changed.connect(begin);
  }

  override dispose(): void {
    this._forget();
    super.dispose();
  }

  private _forget(): void {
    this._live?.dispose();
    this._live = null;
  }
}

/** State, lease, topology and nodes. */
function Small(): React.ReactElement | null {
  const { live, trans, commands } = usePanel();
  useSignal(live.changed);
  const [folds, setFolds] = React.useState<ReadonlyMap<string, boolean>>(new Map());
  const [selection, onSelect] = React.useState<ISelection | null>(null);
  const onFold = React.useCallback((group: string, folded: boolean) => setFolds(before => new Map(before).set(group, folded)), []);
  const place = useTraffic(live);
  const { state } = live;
  if (!state?.nodes) {
    return null;
  }
  const parts = { folds, selection, matches: null, onSelect, onFold };
  return (
    // the notebook's keys are not meant here
    <section className="wardian-Panel wardian-Output" ref={place} aria-label={trans.__('Environment')} data-lm-suppress-shortcuts="true">
      <header className="wardian-Bar">
        <strong>{state.experiment?.name ?? state.record?.name ?? live.path}</strong>
        <span role="status">
          <StateMark state={state.state} />
        </span>
        {live.connection === 'lost' ? <span className="wardian-mod-warning">{trans.__('no connection to the server')}</span> : null}
        <button
          className="wardian-Button"
          onClick={() => void commands.execute('wardian:open-page', { path: live.path, instance: live.instance })}
        >
          {trans.__('Page')}
        </button>
      </header>
      <LeaseLine state={state} />
      <div className="wardian-Output-parts">
        <Topology state={state} large={false} trans={trans} {...parts} />
        <NodeTree nodes={state.nodes} {...parts} />
      </div>
    </section>
  );
}
