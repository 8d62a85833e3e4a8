import { follow } from './follow/plugin';

export default [follow];
