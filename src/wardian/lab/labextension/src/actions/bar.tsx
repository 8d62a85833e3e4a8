import { Dialog, showDialog } from '@jupyterlab/apputils';
import * as React from 'react';

import type { IEnvironment } from '../environment/types';
import { messageOf, usePanel } from '../panel/context';
import { EXTENSION } from '../panel/notices';
import { openMenu } from './menu';
import { UpForm } from './up';

/** What can be done to the whole environment. */
export function ActionBar({ state, large }: { state: IEnvironment; large: boolean }): React.ReactElement {
  const panel = usePanel();
  const { live, server, trans, commands } = panel;
  const [growing, setGrowing] = React.useState(false);
  const [trouble, setTrouble] = React.useState('');
  const up = React.useRef<HTMLButtonElement>(null);
  const [wanted, setWanted] = React.useState<string | null>(null);
  React.useEffect(() => {
    if (live.wanted) {
      setWanted(live.wanted.selector);
      setGrowing(true);
      live.wanted = null;
    }
  });
  const busy = Object.values(state.tasks ?? {}).some(task => task.state === 'running');
  // what is disabled loses the keyboard's focus, and both become so by what they do
  const unready = busy || state.problems.length > 0;
  const gone = busy || state.state === 'absent';
  const which = { path: live.path, instance: live.instance };
  const attempt = (work: Promise<unknown>): void => {
    work.then(
      () => setTrouble(''),
      (error: unknown) => setTrouble(messageOf(error))
    );
  };
  const down = async (): Promise<void> => {
    const name = state.record?.name ?? live.path;
    const answer = await showDialog({
      title: trans.__('Tear %1 down?', name),
      body: trans.__('%1 nodes, and all on them that is not collected, will be gone.', Object.keys(state.nodes).length),
      buttons: [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.warnButton({ label: trans.__('Tear down') })]
    });
    if (answer.button.accept) {
      attempt(server.post('environment/down', which));
    }
  };
  return (
    <>
      <div className="wardian-Bar">
        <button
          className="wardian-Button"
          ref={up}
          aria-expanded={growing}
          aria-disabled={unready}
          onClick={() => {
            if (!unready) {
              setWanted(null);
              setGrowing(!growing);
            }
          }}
        >
          {trans.__('Up…')}
        </button>
        <button className="wardian-Button" aria-disabled={gone} onClick={() => void (gone || down())}>
          {trans.__('Down…')}
        </button>
        <button
          className="wardian-Button"
          aria-haspopup="menu"
          disabled={state.state === 'absent'}
          onClick={event => openMenu(panel, state, { kind: 'all', name: 'all' }, event.currentTarget)}
        >
          {trans.__('Faults')} ▾
        </button>
        {state.lease?.extendable ? (
          <button className="wardian-Button" onClick={() => attempt(server.post('environment/lease', { ...which, extend: EXTENSION }))}>
            {trans.__('Extend by 1 h')}
          </button>
        ) : null}
        <button className="wardian-Button" onClick={() => void commands.execute('docmanager:open', { path: live.path })}>
          {trans.__('File')}
        </button>
        <button className="wardian-Button" onClick={() => void commands.execute('wardian:open-journal', which)}>
          {trans.__('Journal')}
        </button>
        {large ? null : (
          <button
            className="wardian-Button"
            title={trans.__('Open as a page')}
            onClick={() => void commands.execute('wardian:open-page', which)}
          >
            {trans.__('Page')}
          </button>
        )}
      </div>
      {trouble ? (
        <p className="wardian-mod-warning" role="alert">
          {trouble}
        </p>
      ) : null}
      {growing ? (
        <UpForm
          state={state}
          wanted={wanted}
          onClose={() => {
            setGrowing(false);
            up.current?.focus();
          }}
        />
      ) : null}
    </>
  );
}
