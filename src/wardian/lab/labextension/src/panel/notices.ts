import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { Front } from '../environment/front';
import type { Live } from '../environment/live';
import type { Server } from '../environment/server';
import { messageOf } from './context';
import { moment } from './names';

const OFFER_SHOWN = 15_000;
export const EXTENSION = '1h';
/** Of the whole lease, that at most is its end. */
const LAST_PART = 0.25;

/** What the user has set. leaseNotice: minutes. */
export interface INoticeSettings {
  offer: boolean;
  leaseNotice: number;
}

/** Tells of an experiment in the folder that was opened, and of leases that end soon. */
export class Notices {
  settings: INoticeSettings = { offer: true, leaseNotice: 10 };

  private _front: Front;
  private _server: Server;
  private _trans: TranslationBundle;
  private _show: () => void;
  private _offered = new Set<string>();
  private _live: Live | null = null;
  private _timer: number | undefined;
  private _armed = '';

  /** isShown: whether the panel is; show: shows it. */
  constructor(front: Front, server: Server, trans: TranslationBundle, isShown: () => boolean, show: () => void) {
    this._front = front;
    this._server = server;
    this._trans = trans;
    this._show = show;
    front.changed.connect(() => {
      const { live } = this._front;
      if (live && live !== this._live) {
        this._live = live;
        this._armed = '';
        live.changed.connect(this._arm, this);
        if (this.settings.offer && !isShown() && !this._offered.has(live.path)) {
          this._offered.add(live.path);
          this._offer(live);
        }
      }
    });
  }

  private _offer(live: Live): void {
    const trans = this._trans;
    const name = this._front.experiments.find(item => item.path === live.path)?.name ?? live.path;
    Notification.info(trans.__('The experiment %1 is here.', name), {
      autoClose: OFFER_SHOWN,
      actions: [{ label: trans.__('Show its environment'), callback: this._show }]
    });
  }

  /** Have the end of the lease told of in time. */
  private _arm(live: Live): void {
    const { lease, record } = live.state ?? {};
    const armed = JSON.stringify([lease?.end, this.settings.leaseNotice]);
    if (live !== this._live || armed === this._armed) {
      return;
    }
    this._armed = armed;
    window.clearTimeout(this._timer);
    if (lease && record && this.settings.leaseNotice) {
      const before = Math.min(60 * this.settings.leaseNotice, LAST_PART * (lease.end - record.created));
      const left = lease.end - before - Date.now() / 1000;
      // longer than that a timer cannot wait; by then it is armed again
      this._timer = window.setTimeout(() => this._warn(live), Math.min(Math.max(0, 1000 * left), 2 ** 31 - 1));
    }
  }

  private _warn(live: Live): void {
    const { lease, experiment } = live.state ?? {};
    if (live.isDisposed || !lease || lease.end < Date.now() / 1000) {
      return;
    }
    const trans = this._trans;
    const name = experiment?.name ?? live.path;
    const words =
      lease.at_end === 'down'
        ? trans.__('The lease of %1 ends at %2; then it is torn down.', name, moment(lease.end))
        : trans.__('The lease of %1 ends at %2; it is kept.', name, moment(lease.end));
    const extend = (): void => {
      const body = { path: live.path, instance: live.instance, extend: EXTENSION };
      this._server.post('environment/lease', body).catch((error: unknown) => Notification.error(messageOf(error)));
    };
    Notification.warning(words, {
      autoClose: false,
      actions: lease.extendable ? [{ label: trans.__('Extend by 1 h'), callback: extend }] : []
    });
  }
}
