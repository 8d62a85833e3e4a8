import { display } from './display/plugin';
import { editor } from './editor/plugin';
import { follow } from './follow/plugin';
import { launcher } from './launcher/plugin';
import { panel } from './panel/plugin';
import { cellSwitch } from './switch/plugin';
import { watch } from './watch/plugin';

export default [follow, watch, cellSwitch, panel, editor, launcher, display];
