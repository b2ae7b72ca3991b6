import { createApp } from 'vue';
import Docs from './Docs.vue';
import './docs.css';

createApp(Docs).mount('#docs');
