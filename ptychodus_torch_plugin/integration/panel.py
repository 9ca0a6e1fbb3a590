"""The pages of the reconstructors in Ptychodus' window; the one module that imports Qt.

A page is made of Ptychodus' own widgets, bound to its parameters both ways.  It shows the settings
that mean something for the network that is chosen, and follows when another one is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ptychodus.api.observer import Observable, Observer
from ptychodus.api.parameters import Parameter
from ptychodus.controller.data import FileDialogFactory
from ptychodus.controller.parameters import (
    CheckBoxParameterViewController,
    ComboBoxParameterViewController,
    DecimalLineEditParameterViewController,
    ParameterViewBuilder,
    ParameterViewController,
    SpinBoxParameterViewController,
)
from ptychodus.controller.processing import ReconstructorViewControllerFactory
from PyQt5.QtCore import QLocale, Qt
from PyQt5.QtGui import QShowEvent
from PyQt5.QtWidgets import (
    QFormLayout,
    QGroupBox,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ptychodus_torch_plugin.backends.registry import Availability
from ptychodus_torch_plugin.integration.entries import (
    ADVANCED,
    ARCHITECTURE,
    AUTOMATIC,
    BASIC,
    GROUPS,
    INFERENCE,
    MODEL_TYPE,
    Entry,
)
from ptychodus_torch_plugin.integration.introductions import introduction
from ptychodus_torch_plugin.integration.reconstructor import (
    FitReconstructor,
    PretrainedReconstructor,
)
from ptychodus_torch_plugin.integration.settings import PluginSettings, applies_to_pretrained
from ptychodus_torch_plugin.integration.support import LIBRARY_NAME
from ptychodus_torch_plugin.integration.workshop import logger

if TYPE_CHECKING:
    from ptychodus_torch_plugin.integration.library import PluginLibrary

MARGIN_PX = 9


def create_view_factory(
    library: PluginLibrary, file_dialog_factory: FileDialogFactory
) -> PanelFactory:
    """Return the maker of the library's pages; an entry point of `support.VIEW_GROUP`."""
    return PanelFactory(library, file_dialog_factory)


class PanelFactory(ReconstructorViewControllerFactory):
    """Makes one page for each reconstructor."""

    def __init__(self, library: PluginLibrary, file_dialog_factory: FileDialogFactory) -> None:
        super().__init__()
        self._library = library
        self._file_dialog_factory = file_dialog_factory

    @property
    def name(self) -> str:
        """Name of the library whose pages these are."""
        return LIBRARY_NAME

    def create_view_controller(self, reconstructor_name: str) -> QWidget:
        """Return the settings, or why the reconstructor cannot be used."""
        availability = self._library.availability[reconstructor_name]
        if not availability.ok:
            return _unavailable_page(reconstructor_name, availability)
        settings, dialogs = self._library.settings, self._file_dialog_factory
        return _LatePage(
            lambda: (
                _SettingsPage(settings, reconstructor_name, ParameterViewBuilder(dialogs)).widget
            )
        )


class _LatePage(QWidget):
    """A page that is made when it is first seen: making all of them would delay Ptychodus."""

    def __init__(self, make: Callable[[], QWidget]) -> None:
        super().__init__()
        self._make = make

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt calls it
        """Make it, unless it is there."""
        if self.layout() is None:
            layout = QVBoxLayout(self)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.addWidget(self._made())
        super().showEvent(event)

    def _made(self) -> QWidget:
        try:
            return self._make()
        except Exception as error:  # noqa: BLE001, RUF100 - Qt ends the program otherwise
            text = f'the settings cannot be shown: {type(error).__name__}: {error}'
            logger.warning('%s', text)
            label = _wrapped_label()
            label.setText(html.escape(text))
            return label


class _SettingsPage(Observer):
    """A page of settings, which follows the network that is chosen."""

    def __init__(
        self, settings: PluginSettings, reconstructor_name: str, builder: ParameterViewBuilder
    ) -> None:
        super().__init__()
        self._settings = settings
        self._name = reconstructor_name
        self._fields: dict[Entry, QWidget] = {}
        self._intro = _wrapped_label()
        builder.add_view_controller_to_top(_WithoutParameter(self._intro))
        self._add_fields(builder, BASIC)
        for group in GROUPS:
            builder.add_view_controller_to_bottom(_WithoutParameter(self._fold(group)))
        self.widget = builder.build_widget()
        forms = self.widget.findChildren(QFormLayout)
        self._forms = [_Form(form, self._fields) for form in forms]
        width_px = max(form.label_width_px for form in self._forms)
        for form in self._forms:
            form.label_width_px = width_px  # so that the fields of all groups stand in line
        self._follow()
        for path in (ARCHITECTURE, MODEL_TYPE):
            settings.parameters[path].add_observer(self)

    def _add_fields(self, builder: ParameterViewBuilder, entries: Iterable[Entry]) -> None:
        for entry in entries:
            controller = _view_controller(entry, self._settings.parameters[entry.path])
            self._fields[entry] = controller.get_widget()
            group = entry.group if entry in BASIC else ''
            builder.add_view_controller(controller, f'{entry.label}:', group=group)

    def _fold(self, group: str) -> QWidget:
        builder = ParameterViewBuilder()
        self._add_fields(builder, (entry for entry in ADVANCED if entry.group == group))
        return _fold(f'Advanced {group}', builder.build_widget(add_stretch=False))

    def _follow(self) -> None:
        shown = {entry for entry in self._fields if self._is_shown(entry)}
        for form in self._forms:
            form.show_only(shown)
        family = self._settings.parameters[ARCHITECTURE].get_value()
        self._intro.setText(introduction(self._name, family))

    def _is_shown(self, entry: Entry) -> bool:
        if self._name.endswith(PretrainedReconstructor.SUFFIX):
            return applies_to_pretrained(entry)
        fits = self._name.endswith(FitReconstructor.SUFFIX)
        # A model that was loaded may be of another family than the one chosen for training.
        of_any_model = entry.group == INFERENCE and not fits
        return of_any_model or self._settings.applies(entry)

    def _update(self, _observable: Observable) -> None:
        self._follow()


class _Form:
    """The fields of one group, of which some are shown."""

    def __init__(self, layout: QFormLayout, fields: Mapping[Entry, QWidget]) -> None:
        self._layout = layout
        self._rows = {
            entry: (label, field)
            for entry, field in fields.items()
            if (label := layout.labelForField(field)) is not None
        }
        for label, field in self._rows.values():
            label.setToolTip(field.toolTip())
        parent = layout.parentWidget()
        self._box = parent if isinstance(parent, QGroupBox) else parent.parentWidget()

    @property
    def label_width_px(self) -> int:
        """Width of the labels."""
        return max(label.sizeHint().width() for label, _ in self._rows.values())

    @label_width_px.setter
    def label_width_px(self, width_px: int) -> None:
        for label, _ in self._rows.values():
            label.setMinimumWidth(width_px)

    def show_only(self, entries: Container[Entry]) -> None:
        """Show these fields, and the box around them if there are any."""
        # A row that is just hidden leaves its margin behind.
        while self._layout.rowCount():
            self._layout.takeRow(0)
        for entry, (label, field) in self._rows.items():
            is_shown = entry in entries
            if is_shown:
                self._layout.addRow(label, field)
            label.setVisible(is_shown)
            field.setVisible(is_shown)
        self._box.setVisible(self._layout.rowCount() > 0)


class _WithoutParameter(ParameterViewController):
    """A widget without parameter, in the form in which Ptychodus' builder takes it."""

    def __init__(self, widget: QWidget) -> None:
        self._widget = widget

    def get_widget(self) -> QWidget:
        """Return the widget."""
        return self._widget


def _view_controller(entry: Entry, parameter: Parameter[Any]) -> ParameterViewController:
    tool_tip = _tool_tip(entry)
    match entry.kind:
        case 'boolean':
            return CheckBoxParameterViewController(parameter, '', tool_tip=tool_tip)
        case 'string':
            return ComboBoxParameterViewController(parameter, entry.choices, tool_tip=tool_tip)
        case 'number':
            decimal = DecimalLineEditParameterViewController(parameter, tool_tip=tool_tip)
            # Ptychodus reads numbers with a point, whatever the user's language writes.
            decimal.get_widget().findChild(QLineEdit).validator().setLocale(QLocale.c())
            return decimal
    controller = SpinBoxParameterViewController(parameter, tool_tip=tool_tip)
    if entry.automatic is not None:
        # Qt shows it in place of the least number.
        controller.get_widget().setSpecialValueText(AUTOMATIC)
    return controller


def _tool_tip(entry: Entry) -> str:
    """Return what a setting is and takes, and its names elsewhere, as text that Qt wraps."""
    code = re.sub(r'`([^`]*)`', r'<i>\1</i>', html.escape(entry.explanation))
    names = f'{entry.path}; in the settings file [{entry.section}] {entry.key}'
    return f'<p>{code}</p><p>{entry.range}</p><p><small>{names}</small></p>'


def _fold(title: str, content: QWidget) -> QWidget:
    """Return a title that, clicked, shows its content; it begins folded."""
    button = QToolButton()
    button.setText(title)
    button.setCheckable(True)
    button.setAutoRaise(True)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def unfold(is_open: bool) -> None:
        content.setVisible(is_open)
        button.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)

    button.toggled.connect(unfold)
    unfold(False)
    fold = QWidget()
    layout = QVBoxLayout(fold)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    layout.addWidget(button)
    layout.addWidget(content)
    return fold


def _wrapped_label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    return label


def _unavailable_page(reconstructor_name: str, availability: Availability) -> QWidget:
    """Return why a reconstructor cannot be used, and the command that helps, to be copied."""
    name, reason = html.escape(reconstructor_name), html.escape(availability.reason)
    paragraphs = [f'<b>{name}</b> cannot be used: {reason}.']
    if availability.hint:
        command = f'<code>{html.escape(availability.hint)}</code>'
        paragraphs += ['Install it in the environment of Ptychodus, and start it anew:', command]
    label = _wrapped_label()
    label.setText(''.join(f'<p>{paragraph}</p>' for paragraph in paragraphs))
    label.setAlignment(Qt.AlignmentFlag.AlignTop)
    label.setMargin(MARGIN_PX)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
    return label
