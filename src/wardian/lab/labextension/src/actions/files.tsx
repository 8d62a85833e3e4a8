import type { MimeData } from '@lumino/coreutils';
import * as React from 'react';

import type { IListing } from '../environment/types';
import { messageOf, useAnswer, usePanel } from '../panel/context';
import { bytes } from '../panel/names';
import { CONTENTS, type ISource, NODE_FILE } from './browser_files';

/** An event of JupyterLab's own drags (`@lumino/dragdrop`). */
interface IDragEvent extends Event {
  readonly mimeData: MimeData;
  readonly proposedAction: string;
  dropAction: string;
}

const DRAGS = ['lm-dragenter', 'lm-dragover', 'lm-dragleave', 'lm-drop'];

/** The files of a node: folders are entered, files fetched, and files from this computer sent by dropping them here. */
export function Files({ node }: { node: string }): React.ReactElement {
  const { live, server, files: browser, trans } = usePanel();
  const [folder, setFolder] = React.useState('.');
  const [times, setTimes] = React.useState(0);
  const [said, setSaid] = React.useState('');
  const [over, setOver] = React.useState(false);
  const chooser = React.useRef<HTMLInputElement>(null);
  const which = { path: live.path, instance: live.instance, node };
  const key = JSON.stringify([which, folder, times]);
  const { answer, trouble } = useAnswer(() => server.get<IListing>('environment/files', { ...which, folder }), key);
  const here = answer?.folder ?? '';
  const send = async (files: Iterable<File | Promise<File>>): Promise<void> => {
    try {
      for (const item of files) {
        const file = await item;
        setSaid(trans.__('Sending %1…', file.name));
        await server.put('environment/file', { ...which, folder: here, name: file.name }, file);
        setSaid(trans.__('%1 is on %2', file.name, node));
      }
    } catch (error) {
      setSaid(messageOf(error));
    }
    setTimes(before => before + 1);
  };
  const sendPaths = (paths: string[]): Promise<void> => send(paths.map(path => browser!.read(path)));
  const fetched = async (source: ISource): Promise<void> => {
    setSaid(trans.__('Fetching %1…', source.name));
    setSaid(await browser!.save(source).then(path => trans.__('%1 is here', path), messageOf));
  };
  const box = React.useRef<HTMLDivElement>(null);
  // items of the file browser are dragged by JupyterLab's own means
  const take = React.useRef(sendPaths);
  take.current = sendPaths;
  React.useEffect(() => {
    const element = box.current!;
    const drag = (event: Event): void => {
      const { mimeData, proposedAction, type } = event as IDragEvent;
      if (!browser || !mimeData.hasData(CONTENTS)) {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
      (event as IDragEvent).dropAction = proposedAction;
      setOver(type === 'lm-dragenter' || type === 'lm-dragover');
      if (type === 'lm-drop') {
        void take.current(mimeData.getData(CONTENTS) as string[]);
      }
    };
    DRAGS.forEach(type => element.addEventListener(type, drag));
    return () => DRAGS.forEach(type => element.removeEventListener(type, drag));
  }, [browser]);
  return (
    <div
      ref={box}
      className={`wardian-Files${over ? ' wardian-mod-over' : ''}`}
      onDragOver={event => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={event => {
        event.preventDefault();
        setOver(false);
        void send([...event.dataTransfer.files]);
      }}
    >
      <div className="wardian-Bar">
        <code>{here}</code>
        <button className="wardian-Button" disabled={!here} onClick={() => chooser.current!.click()}>
          {trans.__('Upload…')}
        </button>
        {browser ? (
          <button
            className="wardian-Button"
            disabled={!here}
            title={trans.__('Send what is selected in the file browser')}
            onClick={() =>
              void (browser.selected.length ? sendPaths(browser.selected) : setSaid(trans.__('Nothing is selected in the file browser.')))
            }
          >
            {trans.__('From the file browser')}
          </button>
        ) : null}
        <input
          ref={chooser}
          type="file"
          multiple
          hidden
          aria-label={trans.__('Files to upload')}
          onChange={event => {
            void send([...(event.target.files ?? [])]);
          }}
        />
      </div>
      <p className="wardian-Note" role="status">
        {trouble || said || trans.__('Drop files here to send them; drag one to the file browser to fetch it.')}
      </p>
      <ul className="wardian-List wardian-mod-long">
        {here && here !== '/' ? (
          <li>
            <button className="wardian-Row" onClick={() => setFolder(here.replace(/\/[^/]*$/, '') || '/')}>
              <span className="wardian-Row-name">..</span>
            </button>
          </li>
        ) : null}
        {answer?.items.map(item => {
          const full = `${here === '/' ? '' : here}/${item.name}`;
          const source = { url: server.url('environment/file', { ...which, file: full }), name: item.name };
          return (
            <li key={item.name} className="wardian-Files-item">
              {item.kind === 'file' ? (
                <>
                  <a
                    className="wardian-Row"
                    href={source.url}
                    download={item.name}
                    draggable
                    onDragStart={event => event.dataTransfer.setData(NODE_FILE, JSON.stringify(source))}
                  >
                    <span className="wardian-Row-name">{item.name}</span>
                    <span>{bytes(item.size)}</span>
                  </a>
                  {browser ? (
                    <button
                      className="wardian-Button"
                      title={trans.__('Copy it to the folder of the file browser')}
                      aria-label={trans.__('Copy %1 to the folder of the file browser', item.name)}
                      onClick={() => void fetched(source)}
                    >
                      ⇤
                    </button>
                  ) : null}
                </>
              ) : (
                <button className="wardian-Row" disabled={item.kind === 'other'} onClick={() => setFolder(full)}>
                  <span className="wardian-Row-name">
                    {item.name}
                    {item.kind === 'folder' ? '/' : ''}
                  </span>
                </button>
              )}
            </li>
          );
        })}
      </ul>
      {answer && !answer.whole ? <p className="wardian-Note">{trans.__('There is more in this folder than is listed.')}</p> : null}
    </div>
  );
}
