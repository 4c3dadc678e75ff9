;;; test-copy.el --- Copies of sent mail, and when they are filed  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'test-processes)
(require 'rs-smtpmail-copy)

(defvar gnus-message-archive-method)

(defun test-folder (&optional text)
  "Return the name of a new mail file that holds TEXT."
  (let ((file (test-file "folder")))
    (with-temp-file file
      (insert (or text "")))
    file))

(defun test-copies (folder)
  "Return the messages in FOLDER, an mbox file."
  (mapcar (lambda (text) (string-trim-right (string-trim-left text "[^\n]*\n") "\n+"))
          (split-string (test-bytes folder) "^From " t "\n+")))

(defun test-handle-events ()
  "Handle the events that have come."
  (rs-smtpmail--wake)
  (rs-smtpmail--handle-events))

(defun test-wait-until-filed ()
  "Wait until nothing is in the spool."
  (sink-wait "an empty spool" (lambda ()
                                (test-handle-events)
                                (null (rs-smtp-queue-list)))))

(defmacro test-deferring (arguments &rest body)
  "Run BODY with `rs-smtpmail-defer-fcc' and a server started with ARGUMENTS."
  (declare (indent 1))
  `(test-with-server ,arguments
     (let ((rs-smtpmail-defer-fcc t)
           (rs-smtpmail-synchronous nil))
       ,@body)))

(defconst test-body "Hello\nFrom here on, grüße\n"
  "A body that an mbox file changes.")

(defun test-send-with-fcc (mode &rest fields)
  "Send a mail with FIELDS, composed in MODE."
  (test-send #'rs-smtpmail-send-it (apply #'test-header fields) test-body mode))

(ert-deftest test-copy-is-filed-after-acceptance ()
  (dolist (mode '(message-mode mail-mode))
    (test-deferring (test-script '(:stage "greeting" :hold "gate"))
      (let ((folder (test-folder)))
        (test-send-with-fcc mode (concat "Fcc: " folder)
                            "Bcc: Jörg <secret@example.com>" "Subject: Grüße")
        (should (equal "" (test-bytes folder)))
        (should (plist-get (car (rs-smtp-queue-list)) :copy))
        (process-send-string test-server "release gate\n")
        (test-wait-until-filed)
        (let* ((copies (test-copies folder))
               (copy (car copies))
               (sent (string-replace "\r\n" "\n" (plist-get (test-received 1) :bytes))))
          (should (= 1 (length copies)))
          (should-not (string-search "Fcc" copy))
          (should-not (string-search "secret" sent))
          (should (string-match "^Bcc: .*<secret@example.com>" copy))
          ;; One Date, and every field of what was sent.
          (should (= 2 (length (split-string copy "^Date: "))))
          (dolist (line (split-string (substring sent 0 (string-search "\n\n" sent)) "\n"))
            (should (member line (split-string copy "\n"))))
          (should (string-suffix-p
                   (string-trim-right
                    (string-replace "\nFrom " "\n>From "
                                    (substring sent (string-search "\n\n" sent))))
                   copy)))))))

(ert-deftest test-copy-of-a-large-mail ()
  "Its body takes another way."
  (dolist (mode '(message-mode mail-mode))
    (test-deferring nil
      (let ((folder (test-folder))
            (body (apply #'concat (make-list 20000 "A line of text\n"))))
        (test-send #'rs-smtpmail-send-it
                   (cons "X-Rs-Smtpmail-Send-At: 2001-01-01"
                         (test-header (concat "Fcc: " folder)))
                   body mode)
        (test-wait-until-filed)
        (should (equal (string-trim-right body)
                       (substring (car (test-copies folder))
                                  (+ 2 (string-search "\n\n" (car (test-copies folder)))))))
        (should (string-suffix-p (concat "\n\n" body)
                                 (string-replace "\r\n" "\n"
                                                 (plist-get (test-received 1) :bytes))))))))

(ert-deftest test-copy-when-the-sent-hook-fails ()
  "The fields are still there for the next try, whoever sends then."
  (test-deferring nil
    (let ((folder (test-folder))
          (fail t)
          (archived 0))
      (cl-letf (((symbol-function 'gnus-inews-do-gcc)
                 (lambda (&optional _) (cl-incf archived)))
                ((symbol-function 'rs-smtpmail--file-in-group) #'ignore)
                ((symbol-function 'rs-smtpmail--gnus-running-p) #'always))
        (with-temp-buffer
          (message-mode)
          (erase-buffer)
          (test-insert-mail (test-header (concat "Fcc: " folder) "Gcc: nnfolder:sent")
                            "Hello\n")
          (setq-local message-sent-hook
                      (list (lambda () (when fail (error "Made to fail")))
                            'gnus-inews-do-gcc))
          (let ((message-send-mail-function #'rs-smtpmail-send-it))
            (should (equal "Made to fail" (test-error #'message-send))))
          (should (plist-get (car (rs-smtp-queue-list)) :copy))
          (dolist (line (list (concat "Fcc: " folder) "Gcc: nnfolder:sent"))
            (should (member line (split-string (buffer-string) "\n"))))
          (test-wait-until-filed)
          (should (= 1 (length (test-copies folder))))
          (setq fail nil)
          (setq-local message-sent-message-via nil)
          (let ((message-send-mail-function #'always))
            (message-send)))
        (should (= 1 archived))
        (should (= 2 (length (test-copies folder))))))))

(ert-deftest test-copy-compose-buffer-is-as-before ()
  "The buffer is not changed, not even while the mail is being sent."
  (dolist (mode '(message-mode mail-mode))
    (test-deferring nil
      (let ((folder (test-folder)))
        (with-temp-buffer
          (funcall mode)
          (erase-buffer)
          (test-insert-mail (append (test-header "Subject:" "Message-ID:" "Date:")
                                    (list "Subject: Test" (concat "Fcc: " folder)
                                          "X-B: c"))
                            "Hello\n")
          (dotimes (_ 2)
            (setq-local message-sent-message-via nil)
            (if (eq mode 'mail-mode)
                (rs-smtpmail-send-it)
              (let ((message-send-mail-function #'rs-smtpmail-send-it))
                (message-send)))
            (should (= 2 (length (split-string (buffer-string) "^Fcc: "))))
            (should (string-search (format "\nSubject: Test\nFcc: %s\nX-B: c\n" folder)
                                   (buffer-string)))))
        (test-wait-until-filed)
        (should (= 2 (length (test-copies folder))))))))

(ert-deftest test-copy-of-refused-mail-is-not-filed ()
  (dolist (mode '(message-mode mail-mode))
    (test-deferring (test-script '(:stage "rcpt" :reply "550 No such user"))
      (let ((folder (test-folder))
            warnings)
        (setq warnings
              (test-with-warnings
                (test-send-with-fcc mode (concat "Fcc: " folder))
                (test-wait-for-state 'failed)
                (test-handle-events)))
        (should (equal "" (test-bytes folder)))
        (should (= 1 (length warnings)))
        (should-not (string-search "copy has been filed" (car warnings)))))))

(ert-deftest test-copy-of-partly-accepted-mail-is-filed-once ()
  (test-deferring (test-script '(:stage "rcpt" :match "bad@" :reply "550 No such user"))
    (let ((folder (test-folder)))
      (test-with-warnings
        (test-send-with-fcc #'message-mode (concat "Fcc: " folder)
                            "To: good@x.org, bad@x.org")
        (test-wait-for-state 'failed)
        (sink-wait "the copy" (lambda ()
                                (test-handle-events)
                                (not (plist-get (car (rs-smtp-queue-list)) :copy)))))
      (should (= 1 (length (test-copies folder))))
      (should (equal '(failed) (test-states))))))

(ert-deftest test-copy-off-a-failure-says-what-was-filed ()
  (dolist (mode '(message-mode mail-mode))
    (test-with-server (test-script '(:stage "rcpt" :reply "550 No such user"))
      (let* ((rs-smtpmail-synchronous nil)
             (folder (test-folder))
             (warnings (test-with-warnings
                         (test-send-with-fcc mode (concat "Fcc: " folder))
                         (should (= 1 (length (test-copies folder))))
                         (should-not (plist-get (car (rs-smtp-queue-list)) :copy))
                         (test-wait-for-state 'failed)
                         (test-handle-events))))
        (should (string-search (format "A copy has been filed already, in %s" folder)
                               (car warnings)))))))

(ert-deftest test-copy-off-synchronous-failures-say-it-if-it-is-so ()
  (dolist (mode '(message-mode mail-mode))
    (test-with-server (test-script '(:stage "rcpt" :reply "550 No such user"))
      (let* ((folder (test-folder))
             (text (test-error #'test-send-synchronously
                               (test-header (concat "Fcc: " folder)) "Hello\n" mode)))
        ;; Message files nothing when sending signals an error.
        (should (eq (length (test-copies folder))
                    (if (eq mode 'mail-mode) 1 0)))
        (should (eq (eq mode 'mail-mode)
                    (and (string-search "A copy has been filed already" text) t)))))))

(ert-deftest test-copy-synchronous ()
  "It is there when sending returns."
  (dolist (mode '(message-mode mail-mode))
    (test-deferring nil
      (let ((folder (test-folder)))
        (test-send-synchronously (test-header (concat "Fcc: " folder)) "Hello\n" mode)
        (should (= 1 (length (test-copies folder))))
        (should-not (rs-smtp-queue-list))))))

(ert-deftest test-copy-waits-for-the-user-to-be-there ()
  "Filing may ask, and take time."
  (dolist (mode '(message-mode mail-mode))
    (test-deferring nil
      (let ((folder (test-folder))
            waiting)
        (cl-letf (((symbol-function 'rs-smtpmail--when-user-is-there)
                   (lambda (function &rest _) (push function waiting))))
          (let ((noninteractive nil))
            (test-send-with-fcc mode (concat "Fcc: " folder))
            (sink-wait "the outcome" (lambda () waiting))))
        (should (equal "" (test-bytes folder)))
        (should (equal '(filing) (test-states)))
        ;; Asked again meanwhile, it is not filed twice.
        (rs-smtpmail-send-queued-mail)
        (test-handle-events)
        (should (= 1 (length waiting)))
        (funcall (car waiting) nil)
        (test-wait-until-filed)
        (should (= 1 (length (test-copies folder))))))))

;;;; What can't be deferred

(ert-deftest test-copy-that-can-not-be-deferred-is-filed-at-once ()
  (test-deferring (test-script '(:stage "greeting" :hold "gate"))
    (let ((folder (test-folder)))
      ;; A command, which must not come out of a file.
      (test-send-with-fcc #'message-mode (format "Fcc: | cat > %s" folder))
      (should (string-search "Hello" (test-bytes folder)))
      ;; A function without a name.
      (let* ((filed nil)
             (message-fcc-handler-function (lambda (file) (push file filed))))
        (test-send-with-fcc #'message-mode (concat "Fcc: " folder))
        (should (equal (list folder) filed)))
      (should-not (delq nil (mapcar (lambda (entry) (plist-get entry :copy))
                                    (rs-smtp-queue-list))))
      (process-send-string test-server "release gate\n"))))

(ert-deftest test-copy-nothing-stored-is-run ()
  (let ((directory (test-new-directory "run")))
    (dolist (copy (list (format "(:mode message :fcc (\"| touch %srun\") :gcc nil \
:bcc \"\" :directory \"/\")" directory)
                        "(:mode message :fcc (1) :gcc nil :bcc \"\" :directory \"/\")"
                        (format "(write-region \"\" nil \"%srun\")" directory)
                        "#1=(:mode message :fcc #1#)"
                        ")"))
      (should-error (rs-smtpmail--read-copy copy)))
    (should-not (directory-files directory nil "run"))))

;;;; Other ways of filing

(defvar test-filed nil "What `test-file-copy' has filed.")

(defun test-file-copy (file)
  "File this buffer's message in FILE."
  (push (cons file (buffer-string)) test-filed))

(ert-deftest test-copy-by-a-function ()
  (test-deferring nil
    (let ((test-filed nil)
          (default-directory (test-new-directory "home"))
          (directory default-directory))
      (with-temp-buffer
        (message-mode)
        (erase-buffer)
        (setq-local message-fcc-handler-function #'test-file-copy)
        (setq default-directory directory)
        (test-insert-mail (test-header "Fcc: here") "Hello\n")
        (let ((message-send-mail-function #'rs-smtpmail-send-it))
          (message-send)))
      (setq default-directory test-directory)
      (test-wait-until-filed)
      (should (equal (expand-file-name "here" directory) (caar test-filed)))
      (should (string-match-p "\n\nHello\n\\'" (cdar test-filed)))
      (should-not (string-search mail-header-separator (cdar test-filed))))))

(ert-deftest test-copy-into-a-visited-folder ()
  (test-deferring nil
    (let* ((folder (test-folder))
           (buffer (find-file-noselect folder)))
      (unwind-protect
          (progn
            (test-send-with-fcc #'mail-mode (concat "Fcc: " folder))
            (test-wait-until-filed)
            (with-current-buffer buffer
              (should (string-search "\n>From here on, grüße" (buffer-string)))))
        (with-current-buffer buffer
          (set-buffer-modified-p nil)
          (kill-buffer))))))

(ert-deftest test-copy-of-mail-dated-at-sending ()
  "The copy has the Date that the recipients see."
  (dolist (mode '(message-mode mail-mode))
    (test-deferring nil
      (let ((folder (test-folder))
            (rs-smtpmail-send-at-date 'sending))
        (test-send-with-fcc mode (concat "Fcc: " folder)
                            "X-Rs-Smtpmail-Send-At: 1h"
                            "Date: Sat, 01 Nov 2025 12:00:00 +0000")
        (should (equal '(scheduled) (test-states)))
        (rs-smtp-queue-schedule (plist-get (car (rs-smtp-queue-list)) :id) nil)
        (test-wait-until-filed)
        (let ((date (lambda (text)
                      (float-time
                       (progn
                         (should (string-match "^Date: \\([^\r\n]*\\)" text))
                         (date-to-time (match-string 1 text)))))))
          (should (< (abs (- (funcall date (car (test-copies folder)))
                             (funcall date (plist-get (test-received 1) :bytes))))
                     sink-seconds)))
        (should-not (string-search "Send-At" (test-bytes folder)))))))

;;;; Trouble with filing

(ert-deftest test-copy-that-can-not-be-filed-is-kept ()
  (dolist (mode '(message-mode mail-mode))
    (test-deferring nil
      (let* ((noninteractive t) ; filed at once, not when the user is there
             (bad (test-new-directory "no-folder"))
             (good (test-folder))
             (file (expand-file-name "sent" bad))
             (warnings
              (test-with-warnings
                (make-directory file)
                (test-send-with-fcc mode (concat "Fcc: " file) (concat "Fcc: " good))
                (test-wait-for-state 'filing)
                (test-handle-events)
                (rs-smtpmail-send-queued-mail)
                (test-handle-events))))
        (should (= 1 (length warnings)))
        (should (string-search file (car warnings)))
        (should (string-search "M-x rs-smtpmail-send-queued-mail" (car warnings)))
        (should (equal '(filing) (test-states)))
        (should (string-search file (plist-get (car (rs-smtp-queue-list)) :error)))
        (should (= 1 (length (test-copies good))))
        (delete-directory file)
        (with-temp-file file)
        (rs-smtpmail-send-queued-mail)
        (test-wait-until-filed)
        (should (= 1 (length (test-copies file))))
        (should (= 1 (length (test-copies good))))
        (should (= 1 (test-received-count)))))))

(ert-deftest test-copy-can-be-given-up ()
  (test-deferring nil
    (let ((folder (test-new-directory "no-folder")))
      (test-with-warnings
        (test-send-with-fcc #'mail-mode (concat "Fcc: " folder))
        (test-wait-for-state 'filing)
        (test-handle-events))
      (cl-letf (((symbol-function 'yes-or-no-p) #'always))
        (rs-smtpmail-remove (plist-get (car (rs-smtp-queue-list)) :id)))
      (test-wait-until-filed))))

;;;; Restarts

(defun test-fcc-form (mode folder)
  "Return a form that sends a mail with FOLDER in Fcc, composed in MODE."
  `(with-temp-buffer
     (require 'message)
     (,mode)
     (erase-buffer)
     (insert "From: me@example.org\nTo: you@example.com\nBcc: secret@example.com\n"
             "Subject: Test\nFcc: " ,folder "\n" mail-header-separator "\nHello\n")
     (setq rs-smtpmail-defer-fcc t
           message-confirm-send nil
           message-send-mail-function #'rs-smtpmail-send-it)
     ,(if (eq mode 'message-mode) '(message-send) '(rs-smtpmail-send-it))))

(defconst test-resume-form
  '(progn (require 'rs-smtpmail)
          (rs-smtpmail-resume)
          (while (rs-smtp-queue-list) (accept-process-output nil 0.05)))
  "A form that has everything in the spool sent and filed.")

(ert-deftest test-copy-survives-a-kill-before-acceptance ()
  (dolist (mode '(message-mode mail-mode))
    (test-with-server (test-script '(:stage "greeting" :connection 1 :end "hang"))
      (test-with-own-spool
        (let ((folder (test-folder)))
          (test-finish
           (test-emacs `(progn (require 'rs-smtpmail)
                               (setq rs-smtpmail-synchronous nil)
                               ,(test-fcc-form mode folder)
                               (signal-process (emacs-pid) 'SIGKILL))))
          (delete-process (open-network-stream "first" nil "localhost"
                                               smtpmail-smtp-service))
          (should (= 1 (test-stored-entries)))
          (should (equal "" (test-bytes folder)))
          (test-emacs-output test-resume-form)
          (should (= 1 (test-received-count)))
          (should (= 1 (length (test-copies folder))))
          (should (string-match-p "^Bcc: secret@example.com"
                                  (car (test-copies folder)))))))))

(ert-deftest test-copy-survives-a-kill-after-acceptance ()
  (dolist (mode '(message-mode mail-mode))
    (test-with-server nil
      (test-with-own-spool
        (let ((folder (test-folder)))
          (test-finish
           (test-emacs `(progn (require 'rs-smtpmail)
                               (require 'rs-smtpmail-copy)
                               (advice-add 'rs-smtpmail--file-now :override
                                           (lambda (&rest _)
                                             (signal-process (emacs-pid) 'SIGKILL)))
                               ,(test-fcc-form mode folder))))
          (should (= 1 (test-received-count)))
          (should (= 1 (test-stored-entries)))
          (should (equal "" (test-bytes folder)))
          (test-emacs-output test-resume-form)
          (should (= 1 (test-received-count)))
          (should (= 1 (length (test-copies folder))))
          (should (= 0 (test-stored-entries))))))))

(ert-deftest test-copy-half-filed-survives-a-restart ()
  (test-with-server nil
    (test-with-own-spool
      (let ((good (test-folder))
            (bad (test-file "folder")))
        (make-directory bad)
        (test-finish
         (test-emacs `(progn (require 'rs-smtpmail)
                             ,(test-fcc-form 'message-mode
                                             (format "%s\nFcc: %s" good bad)))))
        (should (= 1 (length (test-copies good))))
        (delete-directory bad)
        (with-temp-file bad)
        (test-emacs-output test-resume-form)
        (should (= 1 (length (test-copies good))))
        (should (= 1 (length (test-copies bad))))))))

;;;; Gnus

(defun test-gnus-form (directory)
  "Return a form that makes Gnus, with an archive in DIRECTORY, ready to start."
  `(progn
     (require 'rs-smtpmail)
     (setq rs-smtpmail-defer-fcc t
           rs-smtpmail-synchronous nil
           message-confirm-send nil
           message-directory ,directory
           message-send-mail-function #'rs-smtpmail-send-it
           gnus-home-directory ,directory
           gnus-directory ,directory
           gnus-init-file nil
           gnus-startup-file ,(expand-file-name "newsrc" directory)
           gnus-save-newsrc-file nil
           gnus-read-newsrc-file nil
           gnus-agent nil
           gnus-use-dribble-file nil
           gnus-select-method '(nnnil "")
           gnus-interactive-exit nil
           gnus-message-archive-method
           '(nnfolder "archive"
                      (nnfolder-directory ,(expand-file-name "archive" directory))
                      (nnfolder-active-file ,(expand-file-name "archive/active" directory))
                      (nnfolder-get-new-mail nil)
                      (nnfolder-inhibit-expiry t)))
     (require 'gnus)
     (require 'gnus-msg)
     (require 'gnus-start)
     (defun test-gnus-send ()
       (with-temp-buffer
         (message-mode)
         (erase-buffer)
         (add-hook 'message-sent-hook #'gnus-inews-do-gcc nil t)
         (insert "From: me@example.org\nTo: you@example.com\nSubject: Test\n"
                 "Gcc: nnfolder+archive:sent \"nnfolder+archive:my mail\"\n"
                 mail-header-separator "\nHello\n")
         (message-send)
         (unless (save-excursion (goto-char (point-min))
                                 (re-search-forward "^Gcc: nnfolder" nil t))
           (error "Gcc is gone: %s" (buffer-string)))))
     (defun test-gnus-wait (states)
       (while (not (equal states (mapcar (lambda (entry) (plist-get entry :state))
                                         (rs-smtp-queue-list))))
         (accept-process-output nil 0.05)))))

(defun test-archived (directory group)
  "Return how many messages are in GROUP of the archive in DIRECTORY."
  (let ((file (expand-file-name (concat "archive/" group) directory)))
    (if (file-exists-p file)
        (1- (length (split-string (test-bytes file) "^Message-ID: ")))
      0)))

(ert-deftest test-copy-in-a-group-of-gnus ()
  (test-with-server (test-script '(:stage "greeting" :hold "gate"))
    (test-with-own-spool
      (let* ((directory (test-new-directory "gnus"))
             (other (test-emacs `(progn ,(test-gnus-form directory)
                                        (gnus)
                                        (test-gnus-send)
                                        (message "stored")
                                        (test-gnus-wait nil)))))
        (sink-wait "the other Emacs"
                   (lambda ()
                     (with-current-buffer (process-buffer other)
                       (or (not (process-live-p other))
                           (string-search "stored" (buffer-string))))))
        (should (= 0 (test-archived directory "sent")))
        (process-send-string test-server "release gate\n")
        (let ((result (test-finish other)))
          (ert-info ((cdr result) :prefix "Output: ")
            (should (eq 0 (car result)))
            (should (= 1 (test-archived directory "sent")))
            (should (= 1 (test-archived directory "my mail")))))))))

(ert-deftest test-copy-waits-for-gnus ()
  "Also when Emacs has been started again without Gnus."
  (test-with-server nil
    (test-with-own-spool
      (let ((directory (test-new-directory "gnus")))
        (test-emacs-output
         `(progn ,(test-gnus-form directory)
                 (test-gnus-send)
                 (test-gnus-wait '(filing))
                 (while (not (plist-get (car (rs-smtp-queue-list)) :error))
                   (accept-process-output nil 0.05))))
        (should (= 1 (test-received-count)))
        (let ((output
               (test-emacs-output
                `(progn ,(test-gnus-form directory)
                        (dotimes (_ 2)
                          (rs-smtpmail-resume)
                          (rs-smtpmail--wake)
                          (rs-smtpmail--handle-events))
                        (test-gnus-wait '(filing))
                        (gnus)
                        (test-gnus-wait nil)))))
          ;; Told once.
          (should (= 2 (length (split-string output "Gnus is not running"))))
          (should (= 1 (test-archived directory "sent")))
          (should (= 1 (test-archived directory "my mail"))))))))

(ert-deftest test-copy-that-gnus-can-not-store-is-kept ()
  (test-with-server nil
    (test-with-own-spool
      (let* ((directory (test-new-directory "gnus"))
             (output
              (test-emacs-output
               `(progn ,(test-gnus-form directory)
                       (gnus)
                       (require 'nnfolder)
                       (advice-add 'nnfolder-request-accept-article :override #'ignore)
                       (test-gnus-send)
                       (while (not (plist-get (car (rs-smtp-queue-list)) :error))
                         (accept-process-output nil 0.05))
                       (advice-remove 'nnfolder-request-accept-article #'ignore)
                       (rs-smtpmail-send-queued-mail)
                       (test-gnus-wait nil)))))
        (should (string-search "no copy filed" output))
        (should (= 1 (test-archived directory "sent")))
        (should (= 1 (test-archived directory "my mail")))))))

(provide 'test-copy)

;;; test-copy.el ends here
