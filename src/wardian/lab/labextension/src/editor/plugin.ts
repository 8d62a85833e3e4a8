import { autocompletion } from '@codemirror/autocomplete';
import { type Diagnostic, linter } from '@codemirror/lint';
import { EditorView } from '@codemirror/view';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import type { CodeMirrorEditor } from '@jupyterlab/codemirror';
import { PathExt } from '@jupyterlab/coreutils';
import type { DocumentRegistry, IDocumentWidget } from '@jupyterlab/docregistry';
import { DisposableDelegate } from '@lumino/disposable';
import type { Widget } from '@lumino/widgets';

import { FILE } from '../environment/front';
import { Server } from '../environment/server';
import type { IProblem } from '../environment/types';
import { completion } from './completion';
import type { ISchema } from './schema';

/** After the last key until a text is checked, milliseconds. */
const PAUSE = 400;

/** What is said of a mistake are sentences, and an editor may be as wide as the screen. */
const READABLE = EditorView.theme({ '.cm-tooltip-lint': { maxWidth: 'min(36em, 90vw)', overflowWrap: 'anywhere' } });

/** Marks mistakes in experiment files as they are typed, and completes their keys and values. */
export const editor: JupyterFrontEndPlugin<void> = {
  id: 'wardian:editor',
  description: 'Error marks and completion in experiment.yaml.',
  autoStart: true,
  activate: (app: JupyterFrontEnd) => {
    const server = new Server(app.serviceManager.serverSettings);
    let schema: Promise<ISchema> | null = null;
    const load = (): Promise<ISchema> => {
      schema ??= server.get<ISchema>('experiments/schema').catch((error: unknown) => {
        // the next completion asks again
        schema = null;
        throw error;
      });
      return schema;
    };
    app.docRegistry.addWidgetExtension('Editor', {
      createNew: (widget: IDocumentWidget<Widget & { editor?: CodeMirrorEditor }>, context: DocumentRegistry.Context) => {
        if (PathExt.basename(context.path) === FILE) {
          const check = (view: EditorView): Promise<Diagnostic[]> =>
            marks(server, view, app.serviceManager.contents.localPath(context.path));
          widget.content.editor?.injectExtension([
            linter(check, { delay: PAUSE }),
            READABLE,
            autocompletion({ override: [completion(load)] })
          ]);
        }
        return new DisposableDelegate(() => undefined);
      }
    });
  }
};

async function marks(server: Server, view: EditorView, path: string): Promise<Diagnostic[]> {
  const { doc } = view.state;
  const { problems } = await server.post<{ problems: IProblem[] }>('experiments/validate', { text: doc.toString(), path });
  return problems.map(problem => {
    const line = doc.line(Math.min(Math.max(problem.line ?? 1, 1), doc.lines));
    const from = Math.min(line.from + Math.max((problem.column ?? 1) - 1, 0), line.to);
    const [word] = /^[^\s:,{}[\]]+/.exec(line.text.slice(from - line.from)) ?? [''];
    return { from, to: word ? from + word.length : line.to, severity: 'error', message: problem.text, source: 'Wardian' };
  });
}
